"""Homes that registered a packaged model before its card had search calibrations."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.registry import find_model, insert_search_calibration, register_model, remove_model
from pipeline.registry.packaged import take_over_packaged
from pipeline.search.calibrations import search_calibration
from pipeline.store import Store
from reid_core.files import read_card, write_card
from schemas.calibration import SearchCalibration
from schemas.levels import Level
from schemas.settings import Settings
from tests.helpers.town import PACKAGED

CARD = read_card(PACKAGED)


def registered(store: Store, settings: Settings, folder: Path, searches: tuple[SearchCalibration, ...]) -> int:
    """The packaged demo model, as it was when its card had these search calibrations."""
    source = shutil.copytree(PACKAGED, folder / "before")
    write_card(CARD.model_copy(update={"search_calibration": searches}), source)
    return register_model(store, settings, source, "demo")


def district(store: Store, model: int) -> SearchCalibration | None:
    with store.begin() as connection:
        found = search_calibration(connection, model, Level.DISTRICT)
    return None if found is None else found.value


@pytest.mark.parametrize("earlier", [False, True])
def test_a_home_of_an_earlier_version_gets_the_search_calibrations(
    store: Store, settings: Settings, tmp_path: Path, *, earlier: bool
) -> None:
    old = tuple(each.model_copy(update={"identities": 9.0}) for each in CARD.search_calibration) if earlier else ()
    model = registered(store, settings, tmp_path, old)
    assert district(store, model) == next((each for each in old if each.level is Level.DISTRICT), None)
    for _ in range(2):  # the second time changes nothing
        take_over_packaged(store)
        assert district(store, model) == next(e for e in CARD.search_calibration if e.level is Level.DISTRICT)
    with store.begin() as connection:
        assert find_model(connection, "demo").card.search_calibration == CARD.search_calibration
        rows = connection.scalar(text("SELECT count(*) FROM calibration WHERE purpose = 'search'"))
    assert rows == len(old) + len(CARD.search_calibration)
    remove_model(store, "demo")  # nothing counts as learned here


def test_what_was_learned_here_stays(store: Store, settings: Settings, tmp_path: Path) -> None:
    model = registered(store, settings, tmp_path, ())
    learned = CARD.search_calibration[0].model_copy(update={"level": Level.DISTRICT, "identities": 3.0})
    with store.begin() as connection:
        insert_search_calibration(connection, model, learned)
    take_over_packaged(store)
    assert district(store, model) == learned
