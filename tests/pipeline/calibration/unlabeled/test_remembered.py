"""Distances that were computed before are known again, with the same bits."""

import numpy as np

import reid_core
from pipeline.calibration.unlabeled.remembered import RememberedDistances
from reid_core.serving.core import symmetric_distances
from reid_core.serving.factory import open_core
from schemas.settings import Settings


class Counting:
    """A core that counts the pairs that it computes."""

    def __init__(self) -> None:
        self._core = open_core(Settings(), reid_core.DEMO_MODEL)
        self.card, self.space, self.seconds, self.computed = self._core.card, self._core.space, 0.0, 0
        self.embed = self._core.embed

    def distances(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        self.computed += len(left)
        return self._core.distances(left, right)


def test_each_pair_is_computed_once_and_has_the_bits_of_the_core() -> None:
    core = Counting()
    remembered = RememberedDistances(core)
    # As the store returns them: half precision, so the lower bits are empty; some differ in one value alone.
    vectors = np.random.default_rng(0).normal(size=(40, core.card.dims)).astype(np.float16).astype(np.float64)
    vectors[20:] = vectors[:20]
    vectors[20:, 3] += 2.0**-10
    left, right = (ends.ravel() for ends in np.meshgrid(np.arange(40), np.arange(40)))
    wanted = symmetric_distances(core, vectors[left], vectors[right])
    core.computed = 0
    first = symmetric_distances(remembered, vectors[left], vectors[right])
    assert core.computed == 40 * 40  # each order of a pair, once
    again = symmetric_distances(remembered, vectors[right], vectors[left])
    assert core.computed == 40 * 40
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(again, symmetric_distances(core, vectors[right], vectors[left]))
    remembered.forget()
    core.computed = 0
    remembered.distances(vectors[:5], vectors[5:10])
    assert core.computed == 5
