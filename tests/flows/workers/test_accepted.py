"""What a worker takes from a row of Prefect's API: a flow of its role by name, and its parameters."""

from uuid import uuid4

import pytest

from flows.resolve import district
from flows.workers.accepted import ACCEPTED, accepted
from schemas.errors import UsageError
from schemas.parameters import ResolveParameters


def test_a_flow_of_the_role_with_its_parameters() -> None:
    flow, parameters = accepted("resolve", "district", {"parameters": {"unit": "d1"}})
    assert flow is district and parameters == ResolveParameters(unit="d1")
    request = {"parameters": {"request": str(uuid4())}}
    assert {accepted(role, flow, request)[0].name for role in ("search", "training") for flow in ACCEPTED[role]} == {
        "search",
        "training",
    }


@pytest.mark.parametrize("role", ["search", "training"])
def test_a_flow_of_another_role_is_refused(role: str) -> None:
    with pytest.raises(UsageError, match=f"role {role} runs {role}, and no other flow"):
        accepted(role, "district", {"parameters": {"unit": "d1"}})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"parameters": None},
        {"parameters": {"unit": "d1"}, "command": "s3cret"},
        {"parameters": {"unit": "d1", "env": {"A": "s3cret"}}},
        {"parameters": {"unit": "../s3cret"}},
        {"parameters": {"$ref": {"block_document_id": "s3cret"}}},
        {"parameters": {"unit": {"__prefect_kind": "jinja", "template": "s3cret"}}},
    ],
)
def test_other_parameters_are_refused_and_not_repeated(parameters: object) -> None:
    with pytest.raises(UsageError, match="are not those of its flow") as caught:
        accepted("resolve", "district", parameters)
    assert "s3cret" not in str(caught.value)
