"""Attended distances that were computed before: the passes over a level compare mostly the same vectors."""

import numpy as np
from numpy.typing import NDArray

from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats


class RememberedDistances:
    """A `ReIDCore` that computes the distance of a pair of vectors once.

    The results have the same bits, since a core's distance depends on its pair alone. Vectors are known again by a
    hash of 64 bits (multilinear, Thorup 2015), so that nothing about the nodes that they stand for is needed.
    """

    def __init__(self, core: ReIDCore) -> None:
        self.card, self.space = core.card, core.space
        self._core = core
        self._known: dict[int, float] = {}
        factors = np.random.default_rng(0).integers(0, 2**64, core.card.dims + 1, np.uint64) | np.uint64(1)
        self._factors, self._of_left = factors[1:], factors[0]

    @property
    def seconds(self) -> float:
        return self._core.seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._core.seconds = value

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._core.embed(pictures)

    def distances(self, left: Floats, right: Floats) -> Floats:
        if self.card.diff_attention is None:
            return self._core.distances(left, right)  # as fast as looking them up
        pairs = (self._of_left * self._hashed(left) + self._hashed(right)).tolist()
        new = {pair: row for row, pair in enumerate(pairs) if pair not in self._known}
        if new:
            rows = list(new.values())
            self._known.update(zip(new, self._core.distances(left[rows], right[rows]).tolist(), strict=True))
        return np.array([self._known[pair] for pair in pairs])

    def forget(self) -> None:
        self._known.clear()

    def _hashed(self, vectors: Floats) -> NDArray[np.uint64]:
        bits = np.ascontiguousarray(vectors, np.float64).view(np.uint64)
        # Features in half precision leave the lower 42 bits of a float64 empty, and a product carries upwards alone.
        hashed: NDArray[np.uint64] = ((bits ^ (bits >> np.uint64(42))) * self._factors).sum(axis=1, dtype=np.uint64)
        return hashed
