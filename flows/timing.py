"""Where a run's wall time went: the core, the database, our own work, Prefect, the start.

Several threads may be busy at once. A moment counts once, for the first kind in `KINDS` that anyone was busy with: a
moment in which one thread waits for the core and another sorts candidates is the core's. So the kinds add up to the
total, and what is left without core and database is what the program itself costs.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from reid_core.serving.core import ReIDCore
from schemas.cards import ModelCard

#: In this order; a moment of none of them is the start's too.
KINDS = ("start", "core", "database", "association", "prefect")


class Timing:
    """Collects spans from all threads; `split` says how a stretch of time was spent."""

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
        """A span in seconds of time.perf_counter."""
        assert kind in KINDS and start <= end, (kind, start, end)
        with self._lock:
            self._spans.append((kind, start, end))

    def split(self, start: float, end: float) -> dict[str, float]:
        """Seconds of [start, end] by kind, and `total`."""
        with self._lock:
            spans = [(kind, max(a, start), min(b, end)) for kind, a, b in self._spans if a < end and b > start]
        # Where each kind's activity changes, by how much; between two changes the first active kind gets the time.
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
    """A core that is opened when it is first needed, and whose calls are counted as the core's time.

    Opening one in this process loads torch and the model, which a run with nothing new to look at never needs.
    """

    def __init__(self, card: ModelCard, open_core: Callable[[], ReIDCore], timing: Timing) -> None:
        self.card = card
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
