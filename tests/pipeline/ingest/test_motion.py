import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.motion import OPEN_FOR_S, MotionGate
from tests.helpers.video_files import walk

RANDOM = np.random.default_rng(1)
NOISE = RANDOM.normal(0, 3, (600, 640, 1)).astype(np.int16)
EMPTY = np.full((480, 640, 3), 110, np.uint8)


def noisy(frame: NDArray[np.uint8], brighter: int = 0) -> NDArray[np.uint8]:
    first = RANDOM.integers(0, 100)
    noise = NOISE[first : first + frame.shape[0], : frame.shape[1]]
    return np.asarray(np.clip(frame + noise + brighter, 0, 255), np.uint8)


def test_a_still_view_closes_the_gate_and_somebody_who_walks_opens_it() -> None:
    gate = MotionGate()
    still = [gate.is_open(noisy(EMPTY), at / 5) for at in range(50)]
    assert all(still[: round(OPEN_FOR_S * 5)]) and not any(still[round(OPEN_FOR_S * 5) + 1 :])
    moving = [gate.is_open(noisy(frame), 10 + at / 5) for at, frame in enumerate(walk(40, 3))]
    assert all(moving)


def test_one_who_is_small_and_slow_opens_it() -> None:
    gate = MotionGate()
    for at in range(25):
        gate.is_open(noisy(EMPTY), at / 5)
    opened = []
    for at in range(25):
        frame = EMPTY.copy()
        frame[200:240, 100 + 2 * at : 114 + 2 * at] = 170  # 40 pixels high, 10 pixels a second
        opened.append(gate.is_open(noisy(frame), 5 + at / 5))
    assert opened[0] and all(opened)


def test_light_that_changes_everywhere_opens_nothing() -> None:
    gate = MotionGate()
    opened = [gate.is_open(noisy(EMPTY, brighter=at), at / 5) for at in range(60)]
    assert not any(opened[round(OPEN_FOR_S * 5) + 1 :])


def test_another_size_opens_it() -> None:
    gate = MotionGate()
    for at in range(50):
        gate.is_open(noisy(EMPTY), at / 5)
    assert not gate.is_open(noisy(EMPTY), 10.0)
    assert gate.is_open(noisy(EMPTY[:300]), 10.2)
