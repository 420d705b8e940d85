"""Old windows decided anew with the model in use."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from pipeline.city.status import status
from pipeline.registry import model_in_use, register_model
from pipeline.resolve.again import decide_again, why_nothing
from pipeline.training.promotion import promote
from reid_core.files import read_card, save_model
from reid_core.models import build_model
from reid_core.serving.factory import open_core
from schemas.cards import InputConvention, ModelConfig
from schemas.parameters import Period
from schemas.times import parse_time
from tests.helpers.town import Town

SECOND = ModelConfig(architecture="resnet10s", input=InputConvention(height=64, width=32))
CROPS = 120


@pytest.fixture(scope="module")
def second_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with the calibrations of the first, which decides other things."""
    folder = tmp_path_factory.mktemp("second")
    torch.manual_seed(7)
    save_model(build_model(SECOND), folder, name="second", calibration=read_card(model_folder).calibration)
    return folder


def put_in_use(town: Town) -> None:
    """The second model is promoted, and resolves from now on."""
    store = town.store
    promote(
        store,
        town.crops,
        lambda model: open_core(store.settings, model.directory(store.settings)),
        "second",
        operator="anna",
        reason="a test",
        force=True,
    )
    with store.begin() as connection:
        town.model = model_in_use(connection)
    town.core = open_core(store.settings, town.model.directory(store.settings))


@pytest.fixture
def promoted(town: Town, lines: list[str], second_folder: Path) -> Town:
    """A city resolved with one model before another one is promoted."""
    register_model(town.store, town.store.settings, second_folder, "second")
    town.take_in(lines[:CROPS])
    town.resolve()
    put_in_use(town)
    return town


@pytest.fixture
def expected(fresh_town: Callable[..., Town], lines: list[str], second_folder: Path) -> str:
    """The digest of a city that was resolved with the second model from the start."""
    town = fresh_town()
    register_model(town.store, town.store.settings, second_folder, "second")
    put_in_use(town)
    town.take_in(lines[:CROPS])
    town.resolve()
    return str(status(town.store)["digest"])


def again(town: Town, start: datetime | None = None, end: datetime | None = None) -> int:
    period = Period(from_time=start, to_time=end)
    return decide_again(town.store, "d1", period, operator="anna", reason="the new model is better")


def reason(town: Town) -> str:
    with town.store.begin() as connection:
        return why_nothing(connection, "d1")


def test_a_city_decided_again_equals_one_that_the_model_decided_first(promoted: Town, expected: str) -> None:
    before = status(promoted.store)
    assert promoted.resolve() == 0 and before["digest"] != expected
    assert f"; {before['runs']} windows were decided with an earlier model, which `urban-reid resolve" in reason(
        promoted
    )
    assert again(promoted) == before["runs"]
    assert promoted.resolve() > 0
    assert status(promoted.store)["digest"] == expected
    assert reason(promoted) == "nothing came in since d1 was resolved last"
    with promoted.store.signed_in() as connection:
        old = "SELECT count(*) FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NOT NULL"
        assert connection.scalar(text(old)) == before["decisions"]
        row = connection.execute(text("SELECT * FROM audit WHERE action = 'resolve.again'")).one()
    assert (row.actor, row.unit, row.reason) == ("anna", "d1", "the new model is better")
    assert row.details["windows"] == before["runs"]
    assert again(promoted) == 0 and promoted.resolve() == 0  # nothing is written twice


def test_a_period_goes_on_as_far_as_contexts_change(promoted: Town, lines: list[str], expected: str) -> None:
    """From the middle on; and the first half only, after which later windows follow where they depend on it."""
    times = sorted(parse_time(json.loads(line)["time"]) for line in lines[:CROPS])
    middle = times[len(times) // 2]
    some = again(promoted, end=middle)
    assert 0 < some < status(promoted.store)["runs"]
    assert promoted.resolve() > 0
    with promoted.store.begin() as connection:
        query = "SELECT count(*) FROM run WHERE superseded_at IS NULL AND model_id = :model AND window_start >= :middle"
        later = connection.scalar(text(query), {"model": promoted.model.id, "middle": middle})
    assert later > 0
    again(promoted, start=middle)
    promoted.resolve()
    assert status(promoted.store)["digest"] == expected


def test_a_resolve_says_why_there_is_nothing_to_do(town: Town, lines: list[str]) -> None:
    assert reason(town) == "there are no crops in d1; see `urban-reid ingest --help`"
    town.take_in(lines[:20])
    assert reason(town) == "what is new lies outside --from and --to"
    town.resolve()
    assert reason(town) == "nothing came in since d1 was resolved last"
