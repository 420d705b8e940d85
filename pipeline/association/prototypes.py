"""Prototypes: the vectors that stand for an identity one level up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.association.nodes import unit_rows
from schemas.arrays import Floats

#: Medoids are chosen among at most this many vectors; more of one identity repeat themselves.
_MOST = 256


@dataclass(frozen=True, slots=True)
class Prototypes:
    """What one model knows of an identity. Vectors are float64 as computed, float16 as stored."""

    weight: float  # sum of its crops' qualities
    mean: NDArray[np.floating]  # (D,)
    medoids: NDArray[np.floating]  # (m, D), none where the mean is all there is

    def as_stored(self) -> "Prototypes":
        """What the store gives back of it."""
        return Prototypes(float(np.float32(self.weight)), self.mean.astype(np.float16), self.medoids.astype(np.float16))


def of_crops(features: Floats, quality: Floats, most: int) -> Prototypes:
    """A tracklet's, from its crops in the order of their time: `features` (n, D), `quality` (n,)."""
    return Prototypes(float(quality.sum()), mean_of(features, quality), features[medoids_of(features, most)])


def of_members(members: Sequence[Prototypes], most: int) -> Prototypes:
    """An identity's above camera level, from its members' in the order of their keys."""
    weights = np.array([member.weight for member in members])
    mean = mean_of(np.stack([member.mean for member in members]).astype(np.float64), weights)
    pool = np.concatenate([member.medoids if len(member.medoids) else member.mean[None] for member in members])
    pool = pool.astype(np.float64)
    return Prototypes(float(weights.sum()), mean, pool[medoids_of(pool, most)])


def mean_of(vectors: Floats, weights: Floats) -> Floats:
    """(D,) Quality-weighted mean of (n, D) raw features."""
    assert len(vectors) == len(weights) and len(vectors)
    mean: Floats = weights @ vectors / weights.sum()
    return mean


def medoids_of(vectors: Floats, most: int) -> np.ndarray:
    """Indices of up to `most` of the n vectors such that every one is near one of them, by cosine distance.

    The greedy start (BUILD) of PAM, Kaufman and Rousseeuw 1990; ties fall to the lower index. None for a single
    vector, which is its own mean.
    """
    if len(vectors) < 2:
        return np.empty(0, dtype=np.int64)
    if len(vectors) <= most:
        return np.arange(len(vectors))
    candidates = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), _MOST)).astype(np.int64))
    directions = unit_rows(vectors[candidates])
    distance = np.round(1 - directions @ directions.T, 12)
    chosen: list[int] = []
    nearest = np.full(len(candidates), 2.0)
    while len(chosen) < min(most, len(candidates)):
        gain = np.maximum(nearest[None, :] - distance, 0).sum(axis=1)
        gain[chosen] = -1
        best = int(np.argmax(np.round(gain, 9)))
        if chosen and gain[best] <= 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, distance[best])
    return np.sort(candidates[chosen])
