"""Calibrations without labels: learned at marks of event time or on request, and which windows they hold for."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Row, text

from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
from pipeline.calibration.unlabeled import learn, rehearsal
from pipeline.calibration.unlabeled.outcome import newest_outcomes
from pipeline.calibration.unlabeled.versions import before_first_mark, ensure_calibrations, learn_now
from pipeline.crops.crop_store import CropStore
from pipeline.resolve.calibrations import current_calibrations, read_calibrations
from pipeline.resolve.camera import read_crops
from pipeline.resolve.tracklets import CropColumns
from pipeline.store import Store
from schemas.errors import CityError, InputError
from schemas.levels import Level
from schemas.times import from_us, to_us, window_start
from tests.helpers.thin_town import Crowd, ThinTown, crowd

MARKS = (3_000, 5_400)


@pytest.fixture(scope="module")
def busy() -> Crowd:
    return crowd(cameras=12, people=400, days=0.08)


@pytest.fixture
def town(store: Store, busy: Crowd) -> ThinTown:
    settings = store.settings.model_copy(update={"learning_marks_s": MARKS})
    object.__setattr__(store, "settings", settings)
    return ThinTown(store, busy, calibrated=False)


def ensure(town: ThinTown, until_s: float | None = None) -> int:
    until = None if until_s is None else first(town) + timedelta(seconds=until_s)
    crops = CropStore(town.store.settings)
    return ensure_calibrations(town.store, town.core, crops, town.model, "d1", until)


def first(town: ThinTown) -> Any:
    return from_us(int(town.crowd.crops.time_us.min()))


def seconds(town: ThinTown) -> np.ndarray:
    """(n,) Of each crop, from the first one on."""
    return np.asarray((town.crowd.crops.time_us - town.crowd.crops.time_us.min()) / 1e6)


def learnings(town: ThinTown) -> Sequence[Row[Any]]:
    with town.store.begin() as connection:
        return connection.execute(text("SELECT * FROM learning ORDER BY id")).all()


@pytest.mark.system
def test_versions_are_learned_at_marks_and_hold_for_the_windows_after_them(town: ThinTown) -> None:
    town.take_in(np.flatnonzero(seconds(town) < 4_000))
    assert ensure(town, until_s=1_200) == 0  # its windows are open
    assert ensure(town) == 1 and ensure(town) == 0
    town.take_in(np.flatnonzero(seconds(town) >= 4_000))
    assert ensure(town) == 1 and ensure(town) == 0
    one, other = learnings(town)
    assert (one.mark_s, one.holds_from) == (3_000, None)  # windows before the first mark have nothing else
    mark = first(town) + timedelta(seconds=5_400)
    assert other.learned_to == mark and other.holds_from == window_start(mark, 300) + timedelta(seconds=300)
    town.resolve()
    with town.store.begin() as connection:
        versions = read_calibrations(connection, town.model.id, Level.BUILDING, "d1/s1/b1")
        runs = connection.execute(
            text("SELECT window_start, calibration_id FROM run WHERE level = 'building' AND superseded_at IS NULL")
        ).all()
    assert {row.calibration_id for row in runs} == {stored.id for _, stored in versions.versions}
    for row in runs:
        stored = versions.at(row.window_start)
        assert stored is not None and row.calibration_id == stored.id
        assert (row.window_start >= other.holds_from) == (stored.id == versions.versions[-1][1].id)


def test_a_recording_that_ends_before_the_first_mark_is_told_of_with_the_command(town: ThinTown) -> None:
    def told() -> dict[str, str]:
        with town.store.begin() as connection:
            return before_first_mark(town.store, connection, town.model)

    assert told() == {}
    town.take_in(np.flatnonzero(seconds(town) < 900))
    line = told()["d1"]
    assert "first calibration is learned after 3000 s; `urban-reid models calibrate thin --on-city d1`" in line
    town.take_in(np.flatnonzero((seconds(town) >= 3_000) & (seconds(town) < 3_100)))
    assert told() == {}


@pytest.mark.system
def test_late_crops_change_no_version_and_another_order_of_arrival_learns_the_same(town: ThinTown, busy: Crowd) -> None:
    late = np.flatnonzero(seconds(town) % 100 < 3)
    town.take_in(np.setdiff1d(np.arange(len(busy.crops)), late))
    assert ensure(town) == 2
    before = current_of(town)
    town.take_in(late)
    assert ensure(town) == 0 and current_of(town) == before


def current_of(town: ThinTown) -> dict[Level, Any]:
    with town.store.begin() as connection:
        return dict(current_calibrations(connection, town.model.id, "d1"))


@pytest.mark.system
def test_without_labels_people_are_found_again_and_few_wrongly(town: ThinTown, busy: Crowd) -> None:
    town.take_in(np.arange(len(busy.crops)))
    town.resolve()
    assert scores(town)[Level.DISTRICT.value]["recall"] == 0  # no calibration: nothing is joined
    outcome, learned = learn_now(town.store, town.core, CropStore(town.store.settings), town.model, "d1")
    assert outcome.levels[:2] == (Level.BUILDING, Level.STREET)
    assert sum(one.written for one in town.resolve()) > 0 and sum(one.written for one in town.resolve()) == 0
    found = scores(town)
    assert found["building"]["precision"] > 0.85 and found["building"]["recall"] > 0.5
    assert found["district"]["precision"] > 0.8 and found["district"]["recall"] > 0.2
    for level in learned.levels.values():
        assert level.evidence is not None and level.decisions is not None and level.learned is not None
    with town.store.begin() as connection:
        assert newest_outcomes(connection, town.model.id) == {"d1": outcome}
        # It holds for the unit it was learned in.
        assert current_calibrations(connection, town.model.id, "d2") == {}
        assert current_calibrations(connection, town.model.id) == {}


def scores(town: ThinTown) -> dict[str, dict[str, float]]:
    return agreement_by_level(labeled_tracklets(town.store, "d1", town.model.id), {})


def test_too_little_is_not_learned_and_said(town: ThinTown) -> None:
    town.take_in(np.append(np.flatnonzero(seconds(town) < 3_000)[::60], np.flatnonzero(seconds(town) > 3_000)[0]))
    assert ensure(town) == 1 and ensure(town) == 0  # tried once
    (row,) = learnings(town)
    assert row.outcome["levels"] == [] and set(row.outcome["why_not"]) == {"building", "street", "district"}
    assert current_of(town) == {}


def test_of_more_crops_than_the_limit_the_latest_are_learned_from(
    town: ThinTown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "MAX_CROPS", 300)
    rows = np.flatnonzero(seconds(town) < 3_000)
    town.take_in(rows)
    outcome, _ = learn_now(town.store, town.core, CropStore(town.store.settings), town.model, "d1")
    times_us = np.sort(town.crowd.crops.time_us[rows])
    assert outcome.crops_since is not None
    assert times_us[-301] < to_us(outcome.crops_since) <= times_us[-300] and outcome.tracklets <= 300
    assert f"since {outcome.crops_since:%F %T} UTC" in outcome.lines("d1")[1]
    (row,) = learnings(town)
    assert row.learned_from == first(town)  # from where marks are counted


def test_crops_after_the_mark_are_not_even_read(town: ThinTown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A week that was taken in at once was read for the mark of each of its minutes, hours and days."""
    town.take_in(np.flatnonzero(seconds(town) < 4_000))
    newest_us = []

    def read(*arguments: Any) -> CropColumns:
        found = read_crops(*arguments)
        newest_us.append(max(found.time_us, default=0))
        return found

    monkeypatch.setattr(rehearsal, "read_crops", read)
    assert ensure(town) == 1
    mark_us = to_us(first(town) + timedelta(seconds=MARKS[0]))
    assert mark_us - 60_000_000 < max(newest_us) < mark_us


def test_a_model_with_labels_keeps_its_calibration(store: Store, busy: Crowd) -> None:
    town = ThinTown(store, busy)
    town.take_in(np.arange(len(busy.crops)))
    assert ensure(town) == 0 and not learnings(town)


def test_what_cannot_be_learned_from_is_refused(town: ThinTown) -> None:
    crops = CropStore(town.store.settings)
    with pytest.raises(InputError, match="that is a camera"):
        learn_now(town.store, town.core, crops, town.model, "d1/s1/b1/c1")
    with pytest.raises(CityError, match="d7"):
        learn_now(town.store, town.core, crops, town.model, "d7")
    with pytest.raises(InputError, match="no crops with times"):
        learn_now(town.store, town.core, crops, town.model, "d1")
