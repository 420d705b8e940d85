from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from flows.answered import Answered, Answers
from flows.failures import call
from flows.search import search
from flows.work import working
from pipeline.registry import ModelRow, hold_model_in_use, register_model, use_model
from pipeline.search.request import request_search
from reid_core.files import save_model
from reid_core.models import build_model
from schemas.cards import ModelConfig
from schemas.errors import InputError
from schemas.parameters import RequestParameters, SearchParameters
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town

pytestmark = pytest.mark.usefixtures("prefect_url")


def ask_for(town: Town, **parameters: Any) -> UUID:
    return request_search(town.store, town.model, SearchParameters(unit="d1", operator="me", **parameters))


def run(request: UUID) -> Any:
    return call(search, RequestParameters(request=request), print)


def test_a_search_that_was_asked_for_is_run_once(town: Town, lines: list[str], api: Ask) -> None:
    town.take_in(lines[:80])
    town.resolve()
    with town.store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1"))
    request = ask_for(town, crop_key=key, reason="case 17", top=3)
    with working(town.store.settings):
        hits = run(request).hits
        with pytest.raises(InputError, match="was answered at"):
            run(request)
    assert hits[0].crops[0].key == key
    with town.store.signed_in() as connection:
        row = connection.execute(text("SELECT id, reason, finished_at FROM search_request")).one()
        audit = connection.execute(text("SELECT * FROM audit WHERE action = 'search.start'")).one()
        rows = connection.execute(text("SELECT rank, distance FROM search_hit ORDER BY rank")).all()
    assert (row.reason, audit.reason, audit.actor, audit.unit) == ("case 17", "case 17", "me", "d1")
    assert row.finished_at is not None and audit.details["request"] == str(request) == str(row.id)
    assert [row.distance for row in rows] == [hit.distance for hit in hits]
    artifact = api("/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["search-d1"]}}})[0]
    assert str(request) in artifact["data"] and f"{len(hits)} hits" in artifact["data"]


def test_searches_of_a_warm_process_are_shown_as_runs_of_the_flow(api: Ask) -> None:
    began, answers = datetime.now(UTC) - timedelta(seconds=9), Answers()
    requests = [uuid4(), uuid4()]
    for request, error in zip(requests, ("", "InputError"), strict=True):
        answers.tell(Answered(request, "d1", began, began + timedelta(seconds=2), hits=3, error=error))
    answers.wait()
    shown = {}
    for run in api("/flow_runs/filter", {"flows": {"name": {"any_": ["search"]}}, "sort": "START_TIME_DESC"}):
        shown[run["parameters"].get("parameters", {}).get("request")] = run
    done, failed = (shown[str(request)] for request in requests)
    assert (done["state_type"], done["state"]["message"]) == ("COMPLETED", "d1: 3 hits in 2.00 s")
    assert (failed["state_type"], failed["state"]["message"]) == ("FAILED", "InputError after 2.00 s")


def test_nothing_is_searched_without_a_reason_or_a_request(town: Town) -> None:
    with pytest.raises(ValidationError, match="may not be blank"):
        SearchParameters(unit="d1", crop_key="0" * 64, reason=" \x00\t ", operator="me")
    with working(town.store.settings), pytest.raises(InputError, match="no search was asked for as"):
        run(uuid4())
    with town.store.signed_in() as connection:
        assert connection.scalar(text("SELECT count(*) FROM search_request")) == 0
        assert connection.scalar(text("SELECT count(*) FROM audit WHERE action = 'search.start'")) == 0


def test_work_starts_again_when_another_model_comes_into_use(town: Town, tmp_path: Path) -> None:
    save_model(build_model(ModelConfig(architecture="resnet10s")), tmp_path / "m", name="second")
    register_model(town.store, town.store.settings, tmp_path / "m", "second")
    seen: list[str] = []

    def step(model: ModelRow) -> str:
        seen.append(model.name)
        if len(seen) == 1:
            use_model(town.store, "second")
        with town.store.begin() as connection:
            hold_model_in_use(connection, model)
        return model.name

    with working(town.store.settings) as work:
        assert work.with_model_in_use(step) == "second" and seen == ["test", "second"]
        models = [work.with_model_in_use(lambda model: model), town.model]
        assert [work.core(model).card.name for model in models] == ["second", "test"]
