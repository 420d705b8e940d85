"""Which units a change of the city concerns."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest

from pipeline.city.geometry_changes import changed_geometry
from pipeline.city.units import canonical
from schemas.city_file import City
from schemas.times import EPOCH

UNITS: Mapping[str, Mapping[str, object]] = {
    "d1": {},
    "d1/s1": {},
    "d1/s1/b1": {},
    "d1/s1/b1/c1": {"position": [0, 0], "overlaps": ["d1/s1/b1/c2"]},
    "d1/s1/b1/c2": {"position": [5, 0]},
    "d1/s1/b2": {},
    "d1/s1/b2/c1": {},
    "d1/s1/b2/c2": {},
    "d1/s2": {},
    "d1/s2/b1": {},
    "d1/s2/b1/c1": {},
}
WALKS = (("d1/s1/b1", "d1/s1/b2", 30.0), ("d1/s1", "d1/s2", 60.0))


def city(units: Mapping[str, Mapping[str, object]], walks: Sequence[tuple[str, str, float]] = WALKS) -> City:
    """The city above with other fields for some units."""
    fields = {"units": [{"code": code, **UNITS.get(code, {}), **units.get(code, {})} for code in {**UNITS, **units}]}
    return canonical(
        City.model_validate({**fields, "walks": [{"from": a, "to": b, "shortest_s": s} for a, b, s in walks]})
    )


def crops(*cameras: str) -> dict[str, datetime]:
    """The first crop of each camera: after an hour, two, three ..."""
    return {camera: EPOCH + timedelta(hours=1 + number) for number, camera in enumerate(cameras)}


@pytest.mark.parametrize(
    ("units", "walks", "changed"),
    [
        pytest.param({"d1/s1/b1/c1": {"name": "Door", "source": "x"}}, WALKS, set(), id="names"),
        pytest.param({"d1/s1/b1/c1": {"position": [1, 0]}}, WALKS, {"d1", "d1/s1", "d1/s1/b1"}, id="moved"),
        pytest.param({"d1/s1/b2/c1": {"position": [9, 0]}}, WALKS, {"d1", "d1/s1", "d1/s1/b2"}, id="placed"),
        pytest.param({"d1/s2/b1/c1": {"clock_uncertainty_s": 9}}, WALKS, {"d1", "d1/s2", "d1/s2/b1"}, id="clock"),
        pytest.param({"d1/s1/b1/c1": {"overlaps": []}}, WALKS, {"d1", "d1/s1", "d1/s1/b1"}, id="no overlap"),
        pytest.param({"d1/s1/b2/c1": {"overlaps": ["d1/s1/b2/c2"]}}, WALKS, {"d1", "d1/s1", "d1/s1/b2"}, id="overlap"),
        pytest.param({}, (("d1/s1/b1", "d1/s1/b2", 31.0), WALKS[1]), {"d1", "d1/s1"}, id="walk of a street"),
        pytest.param({}, WALKS[:1], {"d1"}, id="no walk between streets"),
        pytest.param(
            {"d1/s1/b1/c3": {"position": [7, 0], "overlaps": ["d1/s1/b1/c1"]}, "d1/s1/b3": {}},
            (*WALKS, ("d1/s1/b1", "d1/s1/b3", 9.0)),
            set(),
            id="new camera and building",
        ),
    ],
)
def test_what_a_change_concerns(
    units: Mapping[str, Mapping[str, object]], walks: Sequence[tuple[str, str, float]], changed: set[str]
) -> None:
    assert changed_geometry(city({}), city(units, walks), crops(*UNITS)).keys() == changed
    assert changed_geometry(city(units, walks), city({}), crops(*UNITS)).keys() == changed
    assert changed_geometry(city({}), city(units, walks), {}) == {}


@pytest.mark.parametrize(
    ("units", "walks", "changed"),
    [
        pytest.param({"d1/s1/b1/c1": {"position": [1, 0]}}, WALKS, {"d1", "d1/s1", "d1/s1/b1"}, id="moved"),
        pytest.param({"d1/s1/b1/c2": {"position": [1, 0]}}, WALKS, set(), id="moved without crops"),
        pytest.param({"d1/s1/b1/c1": {"overlaps": []}}, WALKS, set(), id="overlap with one without crops"),
        pytest.param({}, (("d1/s1/b1", "d1/s1/b2", 31.0), WALKS[1]), {"d1", "d1/s1"}, id="walk"),
        pytest.param({}, WALKS[:1], set(), id="walk to a street without crops"),
    ],
)
def test_what_a_change_concerns_where_two_cameras_have_crops(
    units: Mapping[str, Mapping[str, object]], walks: Sequence[tuple[str, str, float]], changed: set[str]
) -> None:
    found = changed_geometry(city({}), city(units, walks), crops("d1/s1/b1/c1", "d1/s1/b2/c2"))
    assert found.keys() == changed


@pytest.mark.parametrize(
    ("units", "walks", "since"),
    [
        pytest.param({"d1/s1/b1/c1": {"position": [1, 0]}}, WALKS, 1, id="one camera"),
        pytest.param({"d1/s1/b1/c1": {"position": [1, 0]}, "d1/s1/b2/c2": {"position": [9, 9]}}, WALKS, 1, id="two"),
        pytest.param({"d1/s1/b1/c1": {"overlaps": []}}, WALKS, 2, id="both sides of an overlap"),
        pytest.param({}, (("d1/s1/b1", "d1/s1/b2", 31.0), WALKS[1]), 3, id="both sides of a walk"),
    ],
)
def test_a_change_concerns_no_windows_before_the_first_crops(
    units: Mapping[str, Mapping[str, object]], walks: Sequence[tuple[str, str, float]], since: int
) -> None:
    """The cameras have crops from hour 1, 2, 4 and 3 on."""
    first = crops("d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b2/c1", "d1/s1/b2/c2")
    first["d1/s1/b2/c1"], first["d1/s1/b2/c2"] = first["d1/s1/b2/c2"], first["d1/s1/b2/c1"]
    assert changed_geometry(city({}), city(units, walks), first)["d1"] == EPOCH + timedelta(hours=since)
