"""The machine's two clocks: the wall clock says when a frame was taken, a steady one paces the work.

The wall clock may be set at any time, by a person or a time service. Nothing waits for it, and a jump is noted.
"""

import time
from bisect import bisect_right
from datetime import UTC, datetime, timedelta

#: A wall clock that a time service slews stays within this of the steady one from one reading to the next.
JUMP = timedelta(seconds=1)
#: Two readings of one instant lie closer together than this, unless the process was stopped between them.
_TOGETHER_S = 0.05
_TRIES = 20
_LISTED = 100

#: Goes on while the machine is suspended, where the system has such a clock.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_s() -> float:
    """Seconds by the steady clock."""
    return time.clock_gettime(_STEADY)


def wall() -> datetime:
    """The present by the machine's wall clock, UTC."""
    return datetime.now(UTC)


class ArrivalClock:
    """Times of arrival by both clocks. `notes`: one line for each jump of the wall clock."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._begun_s = steady_s()
        self._offset: timedelta | None = None  # of the wall clock from the steady one, at the last reading
        self._jumps: list[timedelta] = []  # when the wall clock jumped, by the steady one

    def jumps(self, since: timedelta) -> int:
        """How often the wall clock had jumped at `since`."""
        return bisect_right(self._jumps, since)

    def at(self, since: timedelta) -> datetime:
        """The time, by the wall clock as it is now, of what was read at `since`."""
        moment, now = self._both()
        return moment - (now - since)

    def since(self) -> timedelta:
        """The time since the clock was made, which never goes back."""
        return timedelta(seconds=steady_s() - self._begun_s)

    def read(self) -> tuple[datetime, timedelta]:
        """The present by the wall clock, UTC, and the time since the clock was made, which never goes back."""
        moment, since = self._both()
        offset = moment - datetime.min.replace(tzinfo=UTC) - since
        if self._offset is not None and abs(jump := offset - self._offset) > JUMP:
            self._jumps.append(since)
            if len(self._jumps) <= _LISTED:
                way = "ahead" if jump > timedelta(0) else "back"
                self.notes.append(
                    f"the machine's clock was set {way} by {abs(jump).total_seconds():.1f} s, to "
                    f"{moment:%Y-%m-%d %H:%M:%S} UTC; times of capture follow it from there"
                )
        self._offset = offset
        return moment, since

    def _both(self) -> tuple[datetime, timedelta]:
        for _ in range(_TRIES):
            before_s = steady_s()
            moment = wall()
            after_s = steady_s()
            if after_s - before_s < _TOGETHER_S:
                break
        return moment, timedelta(seconds=after_s - self._begun_s)
