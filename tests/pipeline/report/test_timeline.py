from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.identities import DistrictIdentity, Tracklet
from pipeline.report.thumbnails import Picture
from pipeline.report.timeline import LANE, LEFT, THUMB, WIDTH, draw_timeline
from schemas.feeds import Outage

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")


def tracklet(number: int, camera: str, at_s: float, length_s: float = 3.0, truth: str | None = None) -> Tracklet:
    first = START + timedelta(seconds=at_s)
    return Tracklet(number, uuid4(), camera, first, first + timedelta(seconds=length_s), True, 5, truth)


def outage(camera: str, down_s: float, up_s: float | None) -> Outage:
    down, up = (None if s is None else START + timedelta(seconds=s) for s in (down_s, up_s))
    return Outage(camera=camera, down_at=down or START, up_at=up, reason="no route")


def pictures(tracklets: list[Tracklet], width: int = 60) -> Mapping[int, list[Picture]]:
    return {t.id: [Picture(t.camera, bytes([t.id % 256]) * 32, width, 130, t.first_seen, 0.5)] for t in tracklets}


cameras = st.sampled_from(["d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b2/c1", "d1/s2/b1/c1"])
passages = st.lists(st.tuples(cameras, st.floats(0, 90_000)), min_size=1, max_size=80)


@given(passages, st.integers(20, 200))
def test_pictures_stay_in_their_lane_and_do_not_overlap(passages: list[tuple[str, float]], width: int) -> None:
    tracklets = sorted((tracklet(i, c, at) for i, (c, at) in enumerate(passages)), key=lambda t: (t.first_seen, t.id))
    timeline = draw_timeline(DistrictIdentity(UUID(int=1), tracklets), pictures(tracklets, width), ZONE)
    assert [lane.camera for lane in timeline.lanes] == sorted({camera for camera, _ in passages})
    for lane in timeline.lanes:
        placed = sorted(
            (d for d in timeline.drawn if d.tracklet.camera == lane.camera and d.picture), key=lambda d: d.x
        )
        assert placed
        assert placed[0].x >= LEFT - 1e-6
        assert placed[-1].x + placed[-1].width <= WIDTH
        assert all(a.x + a.width <= b.x for a, b in pairwise(placed))
        assert all(lane.y <= d.y and d.y + THUMB <= d.bar_y for d in placed)
        here = [d for d in timeline.drawn if d.tracklet.camera == lane.camera]
        assert lane.without_picture == len(here) - len(placed)
    assert len(timeline.drawn) == len(passages)
    assert len(timeline.links) == len(passages) - 1


def test_links_follow_time_and_the_wrong_tracklet_is_marked() -> None:
    tracklets = [
        tracklet(1, "d1/s1/b1/c1", 0, truth="a"),
        tracklet(2, "d1/s2/b1/c1", 60, truth="b"),
        tracklet(3, "d1/s1/b1/c1", 120, truth="a"),
    ]
    timeline = draw_timeline(DistrictIdentity(UUID(int=1), tracklets), pictures(tracklets), ZONE)
    by_id = {d.tracklet.id: d for d in timeline.drawn}
    assert [d.tracklet.id for d in timeline.drawn if d.wrong] == [2]
    assert by_id[1].bar_x < by_id[2].bar_x < by_id[3].bar_x
    down, up = timeline.links
    assert down.y0 < down.y1 == up.y0 > up.y1
    assert [lane.first_of_street for lane in timeline.lanes] == [True, True]


def test_of_many_cameras_those_with_most_tracklets_are_drawn() -> None:
    tracklets = [tracklet(i, f"d1/s1/b1/c{i}", i * 60.0) for i in range(30)]
    tracklets += [tracklet(100 + i, f"d1/s1/b1/c{i}", 3000 + i * 60.0) for i in range(6, 30)]
    timeline = draw_timeline(DistrictIdentity(UUID(int=1), tracklets), pictures(tracklets), ZONE)
    assert timeline.cameras_left_out == 6
    assert {lane.camera for lane in timeline.lanes} == {f"d1/s1/b1/c{i}" for i in range(6, 30)}


def test_without_pictures_lanes_are_lower_and_nothing_counts_as_left_out() -> None:
    tracklets = [tracklet(i, f"d1/s1/b1/c{i % 2}", i * 60.0) for i in range(5)]
    identity = DistrictIdentity(UUID(int=1), tracklets)
    timeline, with_pictures = (draw_timeline(identity, shown, ZONE) for shown in ({}, pictures(tracklets)))
    assert timeline.lane < with_pictures.lane == LANE
    assert [lane.without_picture for lane in timeline.lanes] == [0, 0]
    assert timeline.lanes[1].y == timeline.lanes[0].y + timeline.lane
    assert all(lane.y < lane.bar_y < lane.y + timeline.lane for lane in timeline.lanes)


def test_without_times_there_are_pictures_but_no_links() -> None:
    tracklets = [Tracklet(i, uuid4(), f"d1/s1/b1/c{i % 2}", START, START, False, 1, None) for i in range(5)]
    timeline = draw_timeline(DistrictIdentity(UUID(int=1), tracklets), pictures(tracklets), ZONE)
    assert timeline.axis is None
    assert timeline.links == []
    assert all(d.picture for d in timeline.drawn)


def test_a_lane_is_shaded_while_its_camera_was_blind() -> None:
    tracklets = [tracklet(1, "d1/s1/b1/c1", 0), tracklet(2, "d1/s1/b1/c2", 3600)]  # with a shortened pause between them
    timeline = draw_timeline(
        DistrictIdentity(UUID(int=1), tracklets),
        {},
        ZONE,
        [
            outage("d1/s1/b1/c1", 20, 40),
            outage("d1/s1/b1/c2", -900, None),
            outage("d1/s1/b1/c2", -900, -800),  # before the time that is drawn
            outage("d1/s1/b1/c9", 20, 40),  # not in this timeline
        ],
    )
    first, second = timeline.blind
    lanes = {lane.camera: lane.y for lane in timeline.lanes}
    bars = {d.tracklet.id: d for d in timeline.drawn}
    assert (first.y, second.y) == (lanes["d1/s1/b1/c1"], lanes["d1/s1/b1/c2"])
    assert bars[1].bar_x + bars[1].bar_width < first.x < first.x + first.width < bars[2].bar_x
    assert second.x == LEFT and second.x + second.width > bars[2].bar_x + bars[2].bar_width
