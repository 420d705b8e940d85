"""Cameras that probably see one place although the city file does not say so.

People whom two such cameras see at once look like pairs that cannot be one person, and are far too alike for that. They
would poison what is known of strangers, so they are left out of it, and the operator is asked.
"""

import numpy as np
from scipy.stats import binom

from pipeline.calibration.unlabeled.pair_sample import PairSample
from schemas.arrays import Bools, Ints

#: Alike is what only this share of the other pairs that cannot be one person is.
_ALIKE = 0.02
#: Two cameras are asked about from this many alike pairs on, if chance makes as many at most this often in the city.
_FEWEST, _CHANCE = 4, 1e-4


def likely_overlaps(pairs: PairSample) -> list[tuple[int, int]]:
    """Pairs of cameras, as numbers of the sample, the lower one first."""
    seen_at_once = pairs.different & (pairs.left_camera != pairs.right_camera) & (pairs.gap_s < 0)
    low = np.minimum(pairs.left_camera, pairs.right_camera)
    high = np.maximum(pairs.left_camera, pairs.right_camera)
    both, of, counts = _unique(low[seen_at_once], high[seen_at_once])
    distance = pairs.distance[seen_at_once]
    others = pairs.distance[pairs.different]
    other_number = np.full(len(others), -1)
    other_number[seen_at_once[pairs.different]] = of
    found = []
    for number, count in enumerate(counts.tolist()):
        rest = others[other_number != number]
        if count < _FEWEST or len(rest) < 1 / _ALIKE:
            continue
        alike = int((distance[of == number] < np.quantile(rest, _ALIKE)).sum())
        if alike >= _FEWEST and binom.sf(alike - 1, count, _ALIKE) * len(counts) < _CHANCE:
            found.append((int(both[number, 0]), int(both[number, 1])))
    return found


def without(pairs: PairSample, overlaps: list[tuple[int, int]]) -> PairSample:
    """The sample without pairs that only such cameras show to be two people."""
    low = np.minimum(pairs.left_camera, pairs.right_camera)
    high = np.maximum(pairs.left_camera, pairs.right_camera)
    among: Bools = np.zeros(len(pairs), bool)
    for one, other in overlaps:
        among |= (low == one) & (high == other)
    return pairs.take(~(among & pairs.different))


def _unique(low: Ints, high: Ints) -> tuple[Ints, Ints, Ints]:
    both, of, counts = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True, return_counts=True)
    return both, of.reshape(-1), counts
