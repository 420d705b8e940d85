"""Static things against people who stand, in rendered frames with sensor noise and JPEG compression."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.ingest.crop_writer import Candidate
from pipeline.ingest.stillness import HOLD_S, STILL_S, ChangeMap, StaticFilter
from pipeline.ingest.tracking import Tracker
from reid_core.detection import Frame
from synthetic.figure import Light, draw_figure
from synthetic.pedestrians import draw_person
from synthetic.skeleton import Pose
from synthetic.textures import Looks, dress

PER_S = 10
CHAIR = (60, 80, 50, 120)  # left, top, width, height of the box, pixels
PERSON = (200, 80, 50, 120)
START = datetime(2026, 1, 1, 8, tzinfo=UTC)


#: A frame, and the boxes that a detector finds in it: left, top, width, height.
Boxed = tuple[Frame, Sequence[tuple[float, ...]]]


class Room:
    """A view of 320 x 240: a wall, a floor and a chair. Each frame has noise and went through JPEG."""

    def __init__(self, seed: int = 1, noise: float = 3.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.grain = self.rng.normal(0, noise, (240, 320, 3)).astype(np.float32)
        wall = cv2.GaussianBlur(self.rng.normal(150, 30, (240, 320, 3)), (0, 0), 6) * 1.0
        self.empty = np.asarray(wall, np.float32)
        x, y, width, height = CHAIR
        texture = self.rng.integers(20, 230, (height // 10, width // 10, 3)).astype(np.float32)
        self.empty[y : y + height, x : x + width] = cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC)
        self.looks: Looks = dress(draw_person(np.random.default_rng(seed)))

    def frame(self, person: tuple[float, float, float] | None = None, walker: float | None = None) -> Frame:
        """`person`: offset x, y in pixels and turn in radians of somebody at PERSON. `walker`: x of a passer-by."""
        canvas = np.dstack([self.empty, np.ones((240, 320), np.float32)])
        px_per_m = 110 / self.looks.person.height_m
        if person is not None:
            foot = (PERSON[0] + 25 + person[0], PERSON[1] + 116 + person[1])
            draw_figure(canvas, self.looks, Pose(person[2], 0.3, 0.1), foot, px_per_m, 0.1, Light(0.3, 0.6))
        if walker is not None:
            pose = Pose(math.pi / 2, walker / 20, 1.0)
            draw_figure(canvas, self.looks, pose, (walker, 215), 1.1 * px_per_m, 0.1, Light(0.3, 0.6))
        shift = tuple(self.rng.integers(0, 240, 2).tolist())  # of one picture of noise: quicker than new noise
        noisy = canvas[..., 2::-1] + np.roll(self.grain, shift, (0, 1))
        encoded, data = cv2.imencode(".jpg", np.clip(noisy, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])
        assert encoded
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def sway(second: float, amplitude: float = 1.5) -> tuple[float, float, float]:
    """How somebody who stands moves: a slow sway, a look around."""
    return (
        amplitude * math.sin(2 * math.pi * 0.23 * second) + 0.4 * amplitude * math.sin(2 * math.pi * 0.71 * second),
        0.3 * amplitude * math.sin(2 * math.pi * 0.31 * second),
        0.1 * amplitude * math.sin(2 * math.pi * 0.11 * second),
    )


def boxed(frames: Iterator[Boxed]) -> tuple[list[Candidate], StaticFilter]:
    """Runs tracker and filter over frames with their boxes; each track gives a crop at each half second."""
    tracker, static = Tracker(0.5), StaticFilter()
    passed: list[Candidate] = []
    for number, (frame, boxes) in enumerate(frames):
        at_s = number / PER_S
        found = np.array([[*box, 0.9] for box in boxes], np.float64).reshape(-1, 5)
        shown = tracker.step(frame, found, at_s)
        crops = [
            (
                track.number,
                Candidate(
                    name=f"track {track.number} at {at_s}",
                    read=bytes,
                    camera="d1/s1/b1/c1",
                    captured_at=START + timedelta(seconds=at_s),
                    box=(*np.round(track.corner_box()),),
                ),
            )
            for track in shown
            if number % 5 == 0
        ]
        passed += static.step(frame, at_s, shown, {track.number for track in tracker.tracks}, crops)
    return [*passed, *static.end([])], static


def places(crops: list[Candidate]) -> list[str]:
    """Which of the two places each crop shows."""
    return ["chair" if crop.box and crop.box[0] < 130 else "person" for crop in crops]


@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_a_chair_that_is_boxed_for_seven_seconds_is_static(noise: float) -> None:
    room = Room(noise=noise)
    passed, static = boxed((room.frame(), [CHAIR]) for _ in range(7 * PER_S))
    assert passed == [] and static.tracks == 1 and 12 <= static.crops <= 14
    assert static.first is not None and static.first.name.startswith("track 1 at ")


def test_a_chair_that_is_boxed_for_minutes_is_static() -> None:
    room = Room()
    jitter = np.random.default_rng(2)
    passed, static = boxed(
        (room.frame(), [tuple(CHAIR + jitter.normal(0, 2, 4))]) for _ in range(120 * PER_S)
    )  # as detectors do
    assert passed == [] and static.tracks == 1 and static.crops > 200


def test_a_chair_that_is_boxed_now_and_then_is_static_each_time() -> None:
    room = Room()
    passed, static = boxed((room.frame(), [CHAIR] if n % 40 < 15 else []) for n in range(40 * PER_S))
    assert passed == [] and static.tracks >= 5


@pytest.mark.parametrize(("seed", "seconds", "amplitude"), [(1, 120, 1.5), (2, 40, 0.5), (3, 40, 0.5)])
def test_a_person_who_stands_for_minutes_is_not_lost(seed: int, seconds: int, amplitude: float) -> None:
    room = Room(seed)
    passed, static = boxed((room.frame(sway(n / PER_S, amplitude)), [CHAIR, PERSON]) for n in range(seconds * PER_S))
    assert set(places(passed)) == {"person"} and len(passed) >= 2 * seconds - 5
    assert static.tracks == 1  # the chair


def test_a_person_who_comes_and_then_does_not_move_at_all_is_not_lost() -> None:
    room = Room()

    def frames() -> Iterator[Boxed]:
        for n in range(40 * PER_S):
            x = max(-6.0 * (20 - n), -80.0) if n < 20 else 0.0
            yield room.frame((x, 0, 0)), [(PERSON[0] + x, *PERSON[1:])]

    passed, static = boxed(frames())
    assert len(passed) >= 75 and static.tracks == 0


def test_a_person_who_freezes_for_a_while_is_not_lost() -> None:
    room = Room()

    def frames() -> Iterator[Boxed]:
        for n in range(80 * PER_S):
            second = n / PER_S if n < 30 * PER_S else max(30.0, n / PER_S - 8)
            yield room.frame(sway(second)), [PERSON]

    passed, static = boxed(frames())
    missing = {START + timedelta(seconds=n / 2) for n in range(1, 160)} - {crop.captured_at for crop in passed}
    assert 2 < static.crops == len(missing) < 50
    assert START + timedelta(seconds=34) < min(missing) and max(missing) < START + timedelta(seconds=60)


def test_a_chair_that_people_pass_is_static_as_soon_as_nobody_passes() -> None:
    room = Room()

    def frames() -> Iterator[Boxed]:
        for n in range(60 * PER_S):
            walker = float(n % 100) * 10 if n % 100 < 32 else None  # for 3 s of each 10 s
            yield room.frame(walker=walker), [CHAIR]

    passed, static = boxed(frames())
    assert passed == [] and static.crops > 50


def test_a_person_who_sleeps_and_gets_up_is_a_person_from_then_on() -> None:
    room = Room()

    def frames() -> Iterator[Boxed]:
        for n in range(30 * PER_S):
            x = max(0.0, n - 20 * PER_S) * 1.0
            yield room.frame((x, 0, 0)), [(PERSON[0] + x, *PERSON[1:])]

    passed, static = boxed(frames())
    assert static.tracks == 1
    assert passed and min(crop.captured_at for crop in passed) > START + timedelta(seconds=20)


def test_where_the_camera_shakes_nothing_is_static() -> None:
    room = Room()
    shift = np.random.default_rng(4)
    frames = ((np.roll(room.frame(), shift.integers(-3, 4, 2), (0, 1)), [CHAIR]) for _ in range(30 * PER_S))
    passed, static = boxed(frames)
    assert len(passed) >= 55 and static.tracks == 0


def test_crops_are_held_no_longer_than_needed() -> None:
    room = Room()
    given: list[int] = []
    tracker, static = Tracker(0.5), StaticFilter()
    crop = Candidate("crop", bytes, "d1/s1/b1/c1", START)
    for n in range(round((HOLD_S + 2) * PER_S)):
        frame = room.frame(sway(n / PER_S))
        shown = tracker.step(frame, np.array([[*PERSON, 0.9]]), n / PER_S)
        given.append(len(list(static.step(frame, n / PER_S, shown, {1}, [(track.number, crop) for track in shown]))))
    first = next(n for n, count in enumerate(given) if count)
    assert first == pytest.approx((HOLD_S + 0.4) * PER_S, abs=1) and set(given[first + 1 :]) == {1}


def test_the_map_of_changes() -> None:
    changes = ChangeMap()
    frame: NDArray[np.uint8] = np.full((240, 320, 3), 90, np.uint8)
    box = np.array([100, 50, 40, 100], np.float64)
    for n in range(round(STILL_S * PER_S) + 1):
        assert not changes.is_known() and not changes.is_still(box)
        changes.step(frame, n / PER_S)
    assert changes.is_known() and changes.is_still(box)
    frame = frame.copy()
    frame[80:120, 110:130] = 120
    changes.step(frame, STILL_S + 0.1)
    assert not changes.is_still(box) and changes.is_still(np.add(box, [100, 0, 0, 0]))
    assert not changes.is_still(np.array([400, 50, 40, 100], np.float64))  # outside the frame
    for n in range(2, 80):
        changes.step(frame, STILL_S + n / PER_S)
        # For a second or so, the frame of a second ago still differs.
        assert changes.is_still(box) is (n > 60) or 60 < n < 67
