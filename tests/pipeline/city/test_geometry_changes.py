"""Which units a change of the city concerns."""

from collections.abc import Mapping, Sequence

import pytest

from pipeline.city.geometry_changes import changed_geometry
from pipeline.city.units import canonical
from schemas.city_file import City

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
    assert changed_geometry(city({}), city(units, walks)) == changed
    assert changed_geometry(city(units, walks), city({})) == changed
    assert changed_geometry(city({}), city(units, walks), set(UNITS)) == changed
    assert changed_geometry(city({}), city(units, walks), set()) == set()


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
    assert changed_geometry(city({}), city(units, walks), {"d1/s1/b1/c1", "d1/s1/b2/c2"}) == changed
