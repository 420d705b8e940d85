"""What the API says of itself is so: schemathesis asks it in many ways, right and wrong."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.limits import Limit
from urban_reid.console.visitors import new_link

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
pytestmark = pytest.mark.system

#: Requests of each operation, right and wrong ones alike many.
_EXAMPLES = 30


def test_no_request_meets_an_answer_that_is_not_described(resolved: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app(resolved.store, ["testserver", "localhost", "127.0.0.1"])
    for limit in ("_REQUESTS", "_SEARCHES"):
        monkeypatch.setattr(f"urban_reid.console.api.{limit}", Limit(1e6, 1e6))
    visitors = app.state.console.visitors
    token = visitors.enter(new_link("", visitors.key).removeprefix("/enter/"))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    headers = {"Authorization": f"Bearer {token}"}
    asked: set[str] = set()

    def validate(case: Any) -> None:
        asked.add(case.operation.label)
        # Whether a token is asked for is tested in test_api.py; here all requests have one. A schema cannot say what is
        # a picture.
        left_out = [checks.ignored_auth, *([checks.positive_data_acceptance] if case.method == "POST" else [])]
        case.call_and_validate(headers=headers, excluded_checks=left_out)

    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            rules = settings(
                max_examples=_EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=(Phase.explicit, Phase.generate),
                suppress_health_check=list(HealthCheck),
            )
            try:
                rules(given(case=operation.as_strategy(mode))(validate))()
            except schemathesis.errors.SchemathesisError as error:
                if "negative" not in str(error).lower():
                    raise
    assert asked == {
        f"{method} {path}" for path, ways in schema.raw_schema["paths"].items() for method in map(str.upper, ways)
    }
