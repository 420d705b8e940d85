"""Clocks that are wrong by a known time, in a city that the test writes itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.city.units import read_city, store_city
from pipeline.report import write_report
from pipeline.report.clocks import CameraClock, read_clocks
from schemas.city_file import City
from schemas.levels import Level
from tests.helpers.report_pages import read_pages
from tests.helpers.resolved_city import write_level, write_tracklets
from tests.helpers.town import Town

CAMERAS = [f"d1/s1/b{b}/c{c}" for b in (1, 2) for c in (1, 2)]
SKEW_S = np.array([0, 6, 0, -2])  # the views of the last two overlap
PEOPLE, STOPS, WAY_S = 300, 4, 30


@pytest.fixture
def walked(fresh_town: Callable[..., Town]) -> Town:
    """A town where people walk between cameras in both directions, timed by each camera's own clock."""
    town = fresh_town()
    units = [{"code": code} for code in ("d1", "d1/s1", "d1/s1/b1", "d1/s1/b2", "d1/s2", "d1/s2/b1")]
    cameras = [{"code": code, "clock_uncertainty_s": 1} for code in (*CAMERAS, "d1/s2/b1/c1")]
    cameras[3]["overlaps"] = [CAMERAS[2]]
    store_city(town.store, City.model_validate({"units": units + cameras}))
    rng = np.random.default_rng(0)
    step = rng.integers(1, len(CAMERAS), (PEOPLE, STOPS))
    camera = step.cumsum(axis=1) % len(CAMERAS)  # (people, stops), never twice the same in a row
    both = (camera[:, 1:] + camera[:, :-1] == 5) & (np.abs(np.diff(camera, axis=1)) == 1)
    gap = np.where(both, rng.integers(-6, -3, both.shape), WAY_S + rng.integers(0, 10, both.shape))
    start = rng.integers(100, 50_000, (PEOPLE, 1)) + np.cumsum(np.pad(gap + 5, ((0, 0), (1, 0))), axis=1)
    start = (start + SKEW_S[camera]).ravel()
    codes = [CAMERAS[i] for i in camera.ravel()]
    person, ones = np.repeat(np.arange(PEOPLE), STOPS), np.ones(PEOPLE * STOPS, np.int64)
    features = rng.normal(size=(len(codes), town.model.dims))
    tracklets = write_tracklets(town.store, town.model.id, codes, start, start + 5, ones, [None] * len(codes), features)
    write_level(town.store, town.model.id, Level.STREET, codes, person, tracklets)
    return town


def clocks_of(town: Town, district: str = "d1") -> list[CameraClock]:
    with town.store.begin() as connection:
        return read_clocks(connection, district, read_city(town.store).cameras(district))


def test_known_skews_are_found_and_sorted(walked: Town) -> None:
    found = clocks_of(walked)
    skew = {clock.camera: clock.skew_s for clock in found}
    assert set(skew) == set(CAMERAS)
    for camera, true in zip(CAMERAS, SKEW_S - SKEW_S.mean(), strict=True):
        assert skew[camera] == pytest.approx(true, abs=0.7)
    assert found[0].camera == CAMERAS[1] and found[0].off
    assert [clock.beyond_s for clock in found] == sorted((clock.beyond_s for clock in found), reverse=True)
    assert all(clock.cameras == 3 for clock in found)
    assert 0.9 < sum(clock.passages for clock in found) / (2 * PEOPLE * (STOPS - 1)) <= 1  # some overtake each other


def test_only_clocks_beyond_their_stated_uncertainty_are_marked(walked: Town, tmp_path: Path) -> None:
    write_report(walked.store, walked.crops, "d1", tmp_path)
    index = read_pages(tmp_path)["index.html"]
    rows = [row for row in index.rows if len(row) == 7 and row[1].endswith(" s")]
    marked = {row[0].split()[-1]: row[1] for row in rows if "further off" in row[6]}
    assert {clock.camera for clock in clocks_of(walked) if clock.off} == set(marked) and CAMERAS[0] not in marked
    assert rows[0][0].endswith(CAMERAS[1]) and marked[CAMERAS[1]].startswith("+") and marked[CAMERAS[3]].startswith("−")
    assert f"{len(marked)} clocks are further off than the city file states" in index.text


def test_an_empty_district_has_no_clocks_to_show(fresh_town: Callable[..., Town]) -> None:
    town = fresh_town()
    assert clocks_of(town) == []
    assert clocks_of(town, "d9") == []
