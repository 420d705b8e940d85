"""How often frames are looked at."""

from datetime import timedelta


class Pace:
    """Picks, of frames that come at any rate, at most so many a second, evenly."""

    def __init__(self, per_second: float) -> None:
        self._interval = timedelta(seconds=1 / per_second)
        self._next: timedelta | None = None

    def is_due(self, since: timedelta) -> bool:
        """Whether the frame at this time, which never goes back, is to be looked at."""
        # A frame that comes a little early is used too; otherwise 30 frames/s would give 7.5 and not 10.
        if self._next is not None and since < self._next - self._interval / 4:
            return False
        # One that comes late does not put off the next, unless a whole look was left out.
        late = self._next is None or since - self._next >= self._interval
        self._next = (since if late or self._next is None else self._next) + self._interval
        return True
