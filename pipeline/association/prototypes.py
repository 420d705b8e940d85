"""Prototypes: the vectors that represent an identity one level up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.association.nodes import unit_rows
from schemas.arrays import Floats, Ints

#: Medoids are chosen among at most this many of an identity's vectors, evenly spaced.
_MAX_CANDIDATES = 256


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Prototypes of one identity under one model. Vectors are float64 as computed, float16 as stored."""

    weight: float  # sum of the qualities of its crops
    mean: NDArray[np.floating]  # (D,)
    medoids: NDArray[np.floating]  # (m, D), none where there is only the mean

    def as_stored(self) -> "Prototypes":
        """Rounded as the store returns them."""
        return Prototypes(float(np.float32(self.weight)), self.mean.astype(np.float16), self.medoids.astype(np.float16))


def prototypes_of_crops(features: Floats, quality: Floats, medoids: int) -> Prototypes:
    """The prototypes of a tracklet: features (n, D) and quality (n,) of its crops in time order, number of medoids."""
    return Prototypes(
        float(quality.sum()), weighted_mean(features, quality), features[choose_medoids(features, medoids)]
    )


def prototypes_of_members(members: Sequence[Prototypes], medoids: int) -> Prototypes:
    """The prototypes of an identity above camera level, from those of its members in key order."""
    weights = np.array([member.weight for member in members])
    mean = weighted_mean(np.stack([member.mean for member in members]).astype(np.float64), weights)
    pool = np.concatenate([member.medoids if len(member.medoids) else member.mean[None] for member in members])
    pool = pool.astype(np.float64)
    return Prototypes(float(weights.sum()), mean, pool[choose_medoids(pool, medoids)])


def weighted_mean(vectors: Floats, weights: Floats) -> Floats:
    """(D,) Weighted mean of the vectors (n, D), n > 0."""
    assert len(vectors) == len(weights) and len(vectors)
    mean: Floats = weights @ vectors / weights.sum()
    return mean


def choose_medoids(vectors: Floats, count: int) -> Ints:
    """(m,) Ascending indices of at most `count` medoids of the vectors (n, D), by cosine distance.

    The greedy BUILD phase of PAM (Kaufman and Rousseeuw 1990); ties break by index. No medoids for a single vector,
    which equals its mean.
    """
    if len(vectors) < 2:
        return np.empty(0, dtype=np.int64)
    if len(vectors) <= count:
        return np.arange(len(vectors))
    candidates = np.arange(len(vectors))
    if len(vectors) > _MAX_CANDIDATES:
        candidates = np.unique(np.linspace(0, len(vectors) - 1, _MAX_CANDIDATES).astype(np.int64))
    directions = unit_rows(vectors[candidates])
    distance = np.round(1 - directions @ directions.T, 12)
    chosen: list[int] = []
    nearest = np.full(len(candidates), 2.0)  # distance of each candidate to its nearest medoid so far
    while len(chosen) < min(count, len(candidates)):
        gain = np.maximum(nearest[None, :] - distance, 0).sum(axis=1)
        gain[chosen] = -1
        best = int(np.argmax(np.round(gain, 9)))
        if chosen and gain[best] <= 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, distance[best])
    return np.sort(candidates[chosen])
