"""How a run's wall time was spent: on the start, the core, the database, association and Prefect.

Several threads may be busy at once. A moment counts once, for the first kind of `KINDS` that any thread is busy with:
when one thread waits for the core and another sorts candidates, it counts for the core. So the kinds add up to the
total, and the rest beside core and database is what the program itself costs.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from reid_core.feature_space import FeatureSpace
from reid_core.serving.core import ReIDCore
from schemas.cards import ModelCard

#: Kinds of work, by precedence. A moment in which no thread is busy counts for the start.
KINDS = ("start", "core", "database", "association", "prefect")


class Timing:
    """Collects spans of work from all threads; `split` adds them up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[tuple[str, float, float]] = []

    @contextmanager
    def during(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, start, time.perf_counter())

    def add(self, kind: str, start: float, end: float) -> None:
        """Adds a span of work; `start` and `end` in seconds of time.perf_counter."""
        assert kind in KINDS and start <= end, (kind, start, end)
        with self._lock:
            self._spans.append((kind, start, end))

    def split(self, start: float, end: float) -> dict[str, float]:
        """Seconds of [start, end] by kind, and as `total`."""
        with self._lock:
            spans = [(kind, max(a, start), min(b, end)) for kind, a, b in self._spans if a < end and b > start]
        # (moment, kind, +1 or -1 active spans); between two changes the time counts for the first active kind.
        changes = sorted(
            (moment, KINDS.index(kind), step) for kind, a, b in spans for moment, step in ((a, 1), (b, -1))
        )
        spent = dict.fromkeys(KINDS, 0.0)
        active = [0] * len(KINDS)
        before = start
        for moment, kind_index, step in changes:
            spent[_first(active)] += moment - before
            active[kind_index] += step
            before = moment
        spent["start"] += end - before
        return spent | {"total": end - start}


def _first(active: list[int]) -> str:
    return next((kind for kind, many in zip(KINDS, active, strict=True) if many), "start")


class TimedCore:
    """A core that is opened at its first call, and whose calls are timed.

    Opening one in this process loads torch and the model; a run that finds nothing new does without.
    """

    def __init__(
        self, card: ModelCard, space: FeatureSpace | None, open_core: Callable[[], ReIDCore], timing: Timing
    ) -> None:
        self.card = card
        self.space = space
        self.seconds = 0.0
        self._open = open_core
        self._core: ReIDCore | None = None
        self._opening = threading.Lock()
        self._timing = timing

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        core = self._opened()
        with self._timing.during("core"):
            features = core.embed(pictures)
        self.seconds = core.seconds
        return features

    def distances(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        core = self._opened()
        with self._timing.during("core"):
            distances = core.distances(left, right)
        self.seconds = core.seconds
        return distances

    def _opened(self) -> ReIDCore:
        with self._opening:
            if self._core is None:
                with self._timing.during("start"):
                    self._core = self._open()
            return self._core
