from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.ingest.tracking import SEEN_BEFORE_SHOWN, Tracker, box_colors, overlaps, shared_areas
from reid_core.detection import Boxes, Frame

RED, BLUE, GREEN = (0, 0, 200), (200, 0, 0), (0, 160, 0)


def scene(people: Sequence[tuple[float, float, tuple[int, int, int]]], confidence: float = 0.9) -> tuple[Frame, Boxes]:
    """A gray frame of 480 x 240 with people (x, y, color) of 40 x 100 pixels, and their boxes."""
    frame = np.full((240, 480, 3), 128, np.uint8)
    for x, y, color in people:
        frame[round(y) : round(y) + 100, round(x) : round(x) + 40] = color
    return frame, np.array([[x, y, 40, 100, confidence] for x, y, _ in people]).reshape(-1, 5)


def test_a_walker_keeps_one_number_and_the_box_follows() -> None:
    tracker = Tracker(sure=0.5)
    for step in range(30):
        frame, boxes = scene([(10 + 9 * step, 60, RED)])
        shown = tracker.step(frame, boxes, step / 10)
        assert len(shown) == (step >= SEEN_BEFORE_SHOWN - 1)
        if shown:
            assert shown[0].number == 1
            assert np.abs(shown[0].corner_box() - boxes[0, :4]).max() < 4
    assert tracker.tracks[0].velocity[0] == pytest.approx(90, abs=5)  # pixels a second


def test_two_people_who_cross_keep_their_numbers() -> None:
    tracker = Tracker(sure=0.5)
    colors: dict[int, set[tuple[int, int, int]]] = {}
    for step in range(40):
        people = [(10 + 10 * step, 60, RED), (400 - 10 * step, 66, BLUE)]
        frame, boxes = scene(people)
        for track in tracker.step(frame, boxes, step / 10):
            nearest = min(people, key=lambda person: abs(person[0] - track.corner_box()[0]))
            if abs(people[0][0] - people[1][0]) > 60:
                colors.setdefault(track.number, set()).add(nearest[2])
    assert sorted(map(len, colors.values())) == [1] * len(colors)
    assert {color for found in colors.values() for color in found} == {RED, BLUE}


def test_another_person_in_the_same_place_begins_a_new_track() -> None:
    tracker = Tracker(sure=0.5)
    numbers = []
    for step in range(20):
        frame, boxes = scene([(100, 60, RED if step < 10 else BLUE)])
        numbers.append({track.number for track in tracker.step(frame, boxes, step / 10)})
    assert numbers[9] == {1} and numbers[10] == set() and numbers[19] == {2}


def test_a_short_gap_is_bridged_and_a_long_one_is_not() -> None:
    for gap, expected in ((5, {1}), (14, {1, 2})):
        tracker = Tracker(sure=0.5)
        numbers = set()
        for step in range(40):
            frame, boxes = scene([(10 + 5 * step, 60, GREEN)])
            seen = boxes[:0] if 15 <= step < 15 + gap else boxes
            numbers |= {track.number for track in tracker.step(frame, seen, step / 10)}
        assert numbers == expected


def test_unsure_boxes_continue_a_track_but_begin_none() -> None:
    tracker = Tracker(sure=0.5)
    for step in range(20):
        frame, boxes = scene([(100 + step, 60, RED)], confidence=0.9 if step < 6 else 0.3)
        shown = tracker.step(frame, boxes, step / 10)
    assert [track.number for track in shown] == [1]
    tracker = Tracker(sure=0.5)
    for step in range(20):
        assert tracker.step(*scene([(100, 60, RED)], confidence=0.3), step / 10) == []


def test_overlaps_and_colors() -> None:
    left: NDArray[np.float64] = np.array([[0, 0, 10, 10], [20, 20, 5, 5]], np.float64)
    right: NDArray[np.float64] = np.array([[5, 0, 10, 10]], np.float64)
    assert shared_areas(left, right).tolist() == [[50], [0]]
    assert overlaps(left, right).tolist() == [[pytest.approx(1 / 3)], [0]]
    frame, boxes = scene([(10, 60, RED), (110, 60, RED), (210, 60, BLUE)])
    found = box_colors(frame, boxes)
    assert found @ found.T == pytest.approx(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))
    assert box_colors(frame, np.array([[900, 900, 10, 10, 1]])).sum() == 0
