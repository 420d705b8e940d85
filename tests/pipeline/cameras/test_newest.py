"""The newest frame through a worker's pipe."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.cameras.newest import Newest, give_always
from reid_core.detection import Frame
from schemas.errors import CoreUnavailable


@contextmanager
def giving(newest: Callable[[], Frame | None]) -> Iterator[Newest]:
    ours, theirs = multiprocessing.Pipe()
    thread = threading.Thread(target=give_always, args=(theirs, newest))
    thread.start()
    yield Newest(ours)
    ours.close()
    thread.join()


def test_a_frame_comes_small_and_is_made_only_when_asked_for() -> None:
    frame = np.full((720, 1280, 3), (10, 20, 30), np.uint8)
    asked = 0

    def newest() -> Frame | None:
        nonlocal asked
        asked += 1
        return frame if asked < 3 else None

    with giving(newest) as one:
        assert asked == 0
        first = one.ask()
        assert first is not None and first.shape == (360, 640, 3) and (first == (10, 20, 30)).all()
        frame[:] = 50
        second = one.ask()
        assert second is not None and (second == 50).all(), "each time the newest"
        assert one.ask() is None and asked == 3


def test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_the_next() -> None:
    ours, theirs = multiprocessing.Pipe()
    one = Newest(ours, within_s=0)
    with pytest.raises(CoreUnavailable, match="gave no picture"):
        one.ask()
    theirs.send((theirs.recv(), np.zeros((2, 2, 3), np.uint8)))
    theirs.send((2, np.ones((2, 2, 3), np.uint8)))
    found = one.ask()
    assert found is not None and found.all()


def test_a_process_that_ended_is_said() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(CoreUnavailable, match="started again"):
        Newest(ours).ask()
