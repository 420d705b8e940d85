"""How often somebody may ask, and how much at once."""

import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from threading import Lock

#: So many askers are remembered.
_ASKERS = 10_000


@dataclass
class Limit:
    """At most `burst` requests at once, and `a_second` over time, for each asker."""

    a_second: float
    burst: float
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def wait_s(self, asker: str) -> float:
        """0 for a request that may be answered now, which counts; else the seconds to wait before one may."""
        now = time.monotonic()
        with self._lock:
            left, at = self._left.pop(asker, (self.burst, now))
            left = min(self.burst, left + (now - at) * self.a_second)
            allowed = left >= 1
            self._left[asker] = (left - 1 if allowed else left, now)
            while len(self._left) > _ASKERS:
                self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.a_second


@dataclass(eq=False)
class Place:
    """One of the things that somebody may have at once; `is_over`: it was given to a newer one."""

    asker: str
    is_over: bool = False


@dataclass
class Places:
    """At most `each` at once for each asker, whose newest ones count, and `every` for all of them together."""

    each: int
    every: int
    _taken: dict[str, deque[Place]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def take(self, asker: str) -> Place | None:
        """A place, which ends the asker's oldest one if that is too many; None if all places are taken."""
        with self._lock:
            own = self._taken.get(asker, deque())
            if len(own) >= self.each:
                own.popleft().is_over = True
            elif sum(map(len, self._taken.values())) >= self.every:
                return None
            own.append(place := Place(asker))
            self._taken[asker] = own
            return place

    def free(self, place: Place) -> None:
        """Gives a place back, which may be over."""
        with self._lock:
            own = self._taken.get(place.asker, deque())
            if place in own:
                own.remove(place)
            if not own:
                self._taken.pop(place.asker, None)
