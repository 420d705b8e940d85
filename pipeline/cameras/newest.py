"""The frame that a camera's worker looked at last, asked for by the cameras' process through a pipe of its own.

It is made small where it lies, and only when it is asked for.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import cv2
import numpy as np

from reid_core.detection import Frame
from schemas.errors import CoreUnavailable

_HEIGHT_PX = 360
#: A worker that has not answered after so long is busy, or ends.
_WITHIN_S = 5.0


class Newest:
    """The end that asks. Safe for threads."""

    def __init__(self, pipe: Connection, within_s: float = _WITHIN_S) -> None:
        self._pipe, self._within_s = pipe, within_s
        self._lock = threading.Lock()
        self._asked = 0

    def ask(self) -> Frame | None:
        """The frame (360, w, 3) BGR; None while the camera is down or has seen nothing. Raises CoreUnavailable."""
        until = time.monotonic() + self._within_s
        if self._lock.acquire(timeout=self._within_s):
            try:
                self._asked += 1
                self._pipe.send(self._asked)
                while self._pipe.poll(max(until - time.monotonic(), 0)):
                    number, frame = self._pipe.recv()
                    if number == self._asked:  # else of somebody who waits for it no more
                        return None if frame is None else np.asarray(frame, np.uint8)
            except (EOFError, OSError):
                raise CoreUnavailable("the camera's process ended and is started again; try again") from None
            finally:
                self._lock.release()
        raise CoreUnavailable(f"the camera's process gave no picture within {self._within_s:g} s; try again")


def give_always(pipe: Connection, newest: Callable[[], Frame | None]) -> None:
    """Gives the newest frame (h, w, 3) whenever it is asked for, until the other end is closed."""
    with suppress(EOFError, OSError):
        while True:
            number, frame = pipe.recv(), newest()
            pipe.send((number, None if frame is None else _small(frame)))


def _small(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    size = max(1, round(width * _HEIGHT_PX / height)), _HEIGHT_PX
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
