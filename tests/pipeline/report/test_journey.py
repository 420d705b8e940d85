from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.journey import JOURNEY_WIDTH, LANE, LEFT, THUMB, draw_journey
from pipeline.report.read import Person, Sighting
from pipeline.report.thumbnails import Picture

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")


def sighting(number: int, camera: str, at_s: float, length_s: float = 3.0, truth: str | None = None) -> Sighting:
    first = START + timedelta(seconds=at_s)
    return Sighting(number, uuid4(), camera, first, first + timedelta(seconds=length_s), True, 5, truth)


def pictures(sightings: list[Sighting], width: int = 60) -> Mapping[int, list[Picture]]:
    return {s.id: [Picture(bytes([s.id % 256]) * 32, width, 130, s.first_seen, 0.5)] for s in sightings}


cameras = st.sampled_from(["d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b2/c1", "d1/s2/b1/c1"])
ways = st.lists(st.tuples(cameras, st.floats(0, 90_000)), min_size=1, max_size=80)


@given(ways, st.integers(20, 200))
def test_pictures_stay_in_their_lane_and_off_each_other(way: list[tuple[str, float]], width: int) -> None:
    sightings = sorted((sighting(i, c, at) for i, (c, at) in enumerate(way)), key=lambda s: (s.first_seen, s.id))
    drawn = draw_journey(Person(UUID(int=1), sightings), pictures(sightings, width), ZONE)
    assert [lane.camera for lane in drawn.lanes] == sorted({camera for camera, _ in way})
    for lane in drawn.lanes:
        placed = sorted((s for s in drawn.shown if s.sighting.camera == lane.camera and s.picture), key=lambda s: s.x)
        assert placed
        assert placed[0].x >= LEFT - 1e-6
        assert placed[-1].x + placed[-1].width <= JOURNEY_WIDTH
        assert all(a.x + a.width <= b.x for a, b in pairwise(placed))
        assert all(lane.y <= s.y and s.y + THUMB <= s.bar_y for s in placed)
        here = [s for s in drawn.shown if s.sighting.camera == lane.camera]
        assert lane.left_out == len(here) - len(placed)
    assert len(drawn.shown) == len(way)
    assert len(drawn.ways) == len(way) - 1


def test_the_line_follows_time_and_the_odd_one_is_marked() -> None:
    way = [
        sighting(1, "d1/s1/b1/c1", 0, truth="a"),
        sighting(2, "d1/s2/b1/c1", 60, truth="b"),
        sighting(3, "d1/s1/b1/c1", 120, truth="a"),
    ]
    drawn = draw_journey(Person(UUID(int=1), way), pictures(way), ZONE)
    by_id = {s.sighting.id: s for s in drawn.shown}
    assert [s.sighting.id for s in drawn.shown if s.odd] == [2]
    assert by_id[1].bar_x < by_id[2].bar_x < by_id[3].bar_x
    down, up = drawn.ways
    assert down.y0 < down.y1 == up.y0 > up.y1
    assert [lane.first_of_street for lane in drawn.lanes] == [True, True]


def test_of_many_cameras_the_busiest_are_drawn() -> None:
    way = [sighting(i, f"d1/s1/b1/c{i}", i * 60.0) for i in range(30)]
    way += [sighting(100 + i, f"d1/s1/b1/c{i}", 3000 + i * 60.0) for i in range(6, 30)]
    drawn = draw_journey(Person(UUID(int=1), way), pictures(way), ZONE)
    assert drawn.cameras_left_out == 6
    assert {lane.camera for lane in drawn.lanes} == {f"d1/s1/b1/c{i}" for i in range(6, 30)}


def test_without_pictures_the_lanes_are_lower_and_nothing_is_left_out() -> None:
    way = [sighting(i, f"d1/s1/b1/c{i % 2}", i * 60.0) for i in range(5)]
    person = Person(UUID(int=1), way)
    drawn, with_pictures = (draw_journey(person, shown, ZONE) for shown in ({}, pictures(way)))
    assert drawn.lane < with_pictures.lane == LANE
    assert [lane.left_out for lane in drawn.lanes] == [0, 0]
    assert drawn.lanes[1].y == drawn.lanes[0].y + drawn.lane
    assert all(lane.y < lane.bar_y < lane.y + drawn.lane for lane in drawn.lanes)


def test_without_times_there_is_an_order_but_no_line() -> None:
    way = [Sighting(i, uuid4(), f"d1/s1/b1/c{i % 2}", START, START, False, 1, None) for i in range(5)]
    drawn = draw_journey(Person(UUID(int=1), way), pictures(way), ZONE)
    assert drawn.axis is None
    assert drawn.ways == []
    assert all(s.picture for s in drawn.shown)
