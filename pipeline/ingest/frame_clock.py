"""A clock that never goes back, from the time stamps that a video file states for its frames.

Stamps go wrong in two ways. A few of them are wrong while the clock around them goes on (a repeated, late or absurd
stamp). Or the clock is set anew, because the file was cut together from several recordings. The stamps that follow
tell which, so frames with doubtful stamps are held back, at most HELD of them.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Generic, TypeVar

HELD = 5
#: A longer step forward is doubtful until the following stamps confirm it.
LONGEST_STEP_S = 10.0
#: No file has a longer gap; a stamp behind one is wrong even where others confirm it.
LONGEST_GAP_S = 366 * 86_400.0

Item = TypeVar("Item")


class FrameClock(Generic[Item]):
    """Gives each frame its seconds on a clock that rises strictly from frame to frame.

    - Stamps that return to the clock after at most HELD doubtful ones: the doubtful frames are spaced evenly between
      their neighbors. The clock of all other frames stays as stated.
    - Stamps that step back and rise from there: a new recording begins, one frame interval after the last frame.
    - Stamps that jump forward and rise from there: a gap in the recording, kept as stated.
    - Other stamps: spaced by the last frame interval.

    `bridged` counts the steps back, jumps and repeats that were replaced; `first_bridged_s` is when the first of them
    happened, on this clock.
    """

    def __init__(self) -> None:
        self.bridged = 0
        self.first_bridged_s: float | None = None
        self._offset = 0.0
        self._last: float | None = None
        self._interval: float | None = None
        self._held: list[tuple[float, Item]] = []

    def push(self, stamp_s: float, item: Item) -> Iterator[tuple[float, Item]]:
        """Takes the next frame with its stamp; gives the frames whose time is now certain.

        Raises NoTimesError when the first HELD + 2 stamps do not rise.
        """
        if self._last is None:
            self._last = stamp_s if 0 <= stamp_s <= LONGEST_GAP_S else 0.0
            self._offset = self._last - stamp_s if math.isfinite(stamp_s) else 0.0
            yield self._last, item
            return
        step = stamp_s + self._offset - self._last
        if 0 < step <= self._longest():
            count = len(self._held) + 1
            if self._held:
                self._note(len(self._held))
            for place, (_, earlier) in enumerate(self._held, start=1):
                yield self._last + step * place / count, earlier
            self._held = []
            self._interval = step / count
            self._last += step
            yield self._last, item
            return
        self._held.append((stamp_s, item))
        if len(self._held) > HELD:
            yield from self.flush()

    def flush(self) -> Iterator[tuple[float, Item]]:
        """Gives the frames that are still held, such as at the end of the file. Raises NoTimesError."""
        held, self._held = self._held, []
        if not held:
            return
        assert self._last is not None
        steps = [later - earlier for (earlier, _), (later, _) in pairwise(held)]
        confirmed = bool(steps) and all(0 < step <= LONGEST_GAP_S for step in steps)
        interval = self._interval or (steps[0] if confirmed else None)
        if interval is None:
            raise NoTimesError
        gap = held[0][0] + self._offset - self._last
        if not confirmed or gap > LONGEST_GAP_S:
            self._note(len(held))
            steps, gap = [interval] * (len(held) - 1), interval
        elif gap <= 0:
            self._note(1)
            gap = interval
            self._offset = self._last + gap - held[0][0]
        for step, (_, item) in zip([gap, *steps], held, strict=True):
            self._last += step
            yield self._last, item
        if confirmed:
            self._interval = steps[-1]

    def _longest(self) -> float:
        return max(LONGEST_STEP_S, 3 * (self._interval or 0.0))

    def _note(self, count: int) -> None:
        self.bridged += count
        if self.first_bridged_s is None:
            self.first_bridged_s = self._last


class NoTimesError(Exception):
    """The stamps of the first frames do not rise: the file states no times."""
