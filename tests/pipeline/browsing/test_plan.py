"""The plan of the city: to scale where cameras have positions, else a schematic."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from pipeline.browsing.plan import Extent, draw_plan
from pipeline.browsing.plan_picture import read_extent, read_picture, remove_picture, store_picture
from schemas.city_file import City, Unit
from schemas.errors import InputError
from schemas.settings import Settings


def city(positions: Mapping[str, tuple[float, float] | None]) -> City:
    above = {"/".join(code.split("/")[:depth]) for code in positions for depth in (1, 2, 3)}
    cameras = (Unit(code=code, position=position) for code, position in positions.items())
    return City(units=(*(Unit(code=code) for code in above), *cameras))


PLACED = {"d1/s1/b1/c1": (0.0, 0.0), "d1/s1/b1/c2": (30.0, 0.0), "d1/s1/b2/c1": (30.0, 40.0)}


def test_distances_on_the_plan_are_those_of_the_ground() -> None:
    plan = draw_plan(city({**PLACED, "d1/s1/b2/c2": None}), {})
    a, b, c = plan.cameras
    assert not plan.is_schematic and plan.left_out == 1
    assert b.y == a.y and b.x > a.x and c.y < b.y, "east is right, north is up"
    of_a_meter = (b.x - a.x) / 30
    assert math.dist((a.x, a.y), (c.x, c.y)) == pytest.approx(50 * of_a_meter, abs=0.3)
    assert plan.bar_m is not None and plan.bar == pytest.approx(plan.bar_m * of_a_meter, abs=0.3)


def test_on_a_picture_cameras_stand_where_its_ground_is() -> None:
    plan = draw_plan(city(PLACED), {}, Extent(-10.0, -10.0, 100.0, 60.0))
    first = plan.cameras[0]
    assert (first.x, first.y) == (108.0, 540.0) and plan.height == 648.0


def test_without_positions_no_two_cameras_stand_in_one_place() -> None:
    codes = [f"d1/s{s}/b{b}/c{c}" for s in (1, 2) for b in (1, 2, 3) for c in range(1, 9)]
    plan = draw_plan(city(dict.fromkeys(codes)), {})
    assert plan.is_schematic and plan.bar_m is None
    assert len({(one.x, one.y) for one in plan.cameras}) == len(codes)
    assert all(0 <= one.x <= plan.width and 0 <= one.y <= plan.height for one in plan.cameras)


def test_a_way_holds_both_directions_and_the_widest_is_drawn_last() -> None:
    ways = {("d1/s1/b1", "d1/s1/b2"): 3, ("d1/s1/b2", "d1/s1/b1"): 4, ("d1/s1/b1", "d1/s9/b9"): 50}
    plan = draw_plan(city({**PLACED, "d1/s1/b3/c1": (60.0, 60.0)}), {**ways, ("d1/s1/b1", "d1/s1/b3"): 1})
    assert [(way.there, way.back) for way in plan.ways] == [(1, 0), (3, 4)]
    assert plan.ways[0].width < plan.ways[1].width


def test_a_picture_is_kept_with_its_ground_and_taken_away(settings: Settings) -> None:
    pixels = np.zeros((300, 600, 3), np.uint8)
    settings.home.mkdir(exist_ok=True)
    store_picture(settings, pixels, 5.0, 6.0, 200.0)
    assert read_extent(settings) == Extent(5.0, 6.0, 200.0, 100.0)
    assert (settings.home / "plan" / "picture.png").stat().st_mode & 0o077 == 0 and read_picture(settings) is not None
    with pytest.raises(InputError, match="between 1 m and 1000 km"):
        store_picture(settings, pixels, 0.0, 0.0, 0.0)
    for left, bottom in ((math.nan, 0.0), (0.0, math.inf), (1e308, 0.0)):
        with pytest.raises(InputError, match="begins at most"):
            store_picture(settings, pixels, left, bottom, 200.0)
    remove_picture(settings)
    assert read_extent(settings) is None and read_picture(settings) is None
