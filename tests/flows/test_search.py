import asyncio
import json
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from flows.search import search
from flows.work import working
from pipeline.city.units import read_city
from pipeline.registry import ModelRow, hold_model_in_use, register_model, use_model
from reid_core.files import save_model
from reid_core.models import build_model
from schemas.cards import ModelConfig
from schemas.errors import CityError
from schemas.parameters import SearchParameters
from schemas.times import period_text
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town

pytestmark = pytest.mark.usefixtures("prefect_url")


def test_a_search_is_written_down_and_shown(town: Town, lines: list[str], api: Ask) -> None:
    town.take_in(lines[:80])
    town.resolve()
    with town.store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1"))
    reason = "case 17\n<img src=x onerror=alert(1)> | \u202e"
    asked = SearchParameters(unit="d1", crop_key=key, reason=reason, operator="me", top=3)
    with working(town.store.settings):
        result = asyncio.run(search(asked))
    hits = result.hits
    assert hits[0].crops[0].key == key
    with town.store.begin() as connection:
        request = connection.execute(text("SELECT * FROM search_request")).one()
        audit = connection.execute(text("SELECT * FROM audit WHERE action = 'search.start'")).one()
        rows = connection.execute(text("SELECT rank, distance FROM search_hit ORDER BY rank")).all()
    assert (request.reason, audit.reason, audit.actor, audit.unit) == (asked.reason, asked.reason, "me", "d1")
    assert request.finished_at is not None and audit.details["request"] == str(request.id)
    assert [row.distance for row in rows] == [hit.distance for hit in hits]
    artifact = api("/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["search-d1"]}}})[0]
    assert key in artifact["data"] and str(request.id) in artifact["description"]
    zone = ZoneInfo(read_city(town.store).timezone)
    assert hits[0].first_seen is not None and hits[0].last_seen is not None
    seen = json.loads(artifact["data"])[0][f"seen ({zone.key})"]
    assert seen == period_text(hits[0].first_seen, hits[0].last_seen, zone) and "UTC" not in zone.key
    assert "<img" not in artifact["description"] and "\n" not in artifact["description"]


def test_nothing_is_searched_without_a_reason_or_a_place(town: Town) -> None:
    with pytest.raises(ValidationError, match="may not be blank"):
        SearchParameters(unit="d1", crop_key="0" * 64, reason=" \x00\t ", operator="me")
    with working(town.store.settings), pytest.raises(CityError, match="no unit 'd7'"):
        asyncio.run(search(SearchParameters(unit="d7", crop_key="0" * 64, reason="x", operator="me")))
    with town.store.begin() as connection:
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
