"""How often somebody may ask."""

import time
from collections import OrderedDict
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
