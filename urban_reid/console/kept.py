"""Pictures that are kept in memory for a while, and dropped when it is over, whether or not anybody asks again."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, Timer
from typing import Generic, TypeVar
from weakref import WeakMethod

T = TypeVar("T")


class Later:
    """Does some work in a thread, a while after it was asked for and once for all who asked meanwhile."""

    def __init__(self, work: Callable[[], float | None]) -> None:
        """work: a method, which returns after how many seconds it has to be done again, or None. It raises nothing."""
        self._work = WeakMethod(work)  # no timer keeps an object that nothing else does
        self._timer: Timer | None = None
        self._lock = Lock()

    def ask(self, after_s: float) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = Timer(after_s, self._do)
                self._timer.daemon = True
                self._timer.start()

    def _do(self) -> None:
        with self._lock:
            self._timer = None
        work = self._work()
        if work is not None and (again_s := work()) is not None:
            self.ask(again_s)


@dataclass(frozen=True)
class _One(Generic[T]):
    what: T
    size: int
    until: float


class Kept(Generic[T]):
    """Things by name, each for `seconds`, and the newest `most` bytes of them. Safe for threads."""

    def __init__(self, seconds: float, most: float = float("inf")) -> None:
        self._seconds, self._most, self._size = seconds, most, 0
        self._found: OrderedDict[str, _One[T]] = OrderedDict()  # the oldest first
        self._lock = Lock()
        self._later = Later(self._drop_old)

    def put(self, name: str, what: T, size: int = 0) -> None:
        with self._lock:
            self._drop(name)
            self._found[name] = _One(what, size, time.monotonic() + self._seconds)
            self._size += size
            while self._size > self._most:
                self._drop(next(iter(self._found)))
        self._later.ask(self._seconds)

    def get(self, name: str) -> T | None:
        """None if it is not kept, or not any more."""
        with self._lock:
            one = self._found.get(name)
        return None if one is None or one.until <= time.monotonic() else one.what

    def drop(self, which: Callable[[T], bool]) -> None:
        with self._lock:
            for name in [name for name, one in self._found.items() if which(one.what)]:
                self._drop(name)

    def _drop(self, name: str) -> None:
        if (one := self._found.pop(name, None)) is not None:
            self._size -= one.size

    def _drop_old(self) -> float | None:
        with self._lock:
            now = time.monotonic()
            for name in [name for name, one in self._found.items() if one.until <= now]:
                self._drop(name)
            return next((one.until - now for one in self._found.values()), None)
