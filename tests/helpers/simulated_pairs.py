"""Shortlisted pairs of simulated people: look-alikes, cameras' shifts, and means over few or many crops."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairs:
    distance: np.ndarray  # (p,) Euclidean, between directions, 0..2
    transit: np.ndarray  # (p,) the true log likelihood ratio of a gap
    left_weight: np.ndarray  # (p,) crops
    right_weight: np.ndarray
    same: np.ndarray
    person: np.ndarray  # (p,) of the left side


def simulated_pairs(seed: int, people: int = 1_500, *, noise: float = 1.2, speaks: float = 1.5) -> Pairs:
    """Each tracklet with its 12 nearest by cosine among those of other cameras, every pair once.

    noise: of one crop, against a spread between people of 1. speaks: how far apart one person's and strangers' gaps
    lie, as the distance of two normal distributions.
    """
    rng = np.random.default_rng([seed, 99])
    dims, cameras = 48, 20
    spread = 1 / np.sqrt(1 + np.arange(dims) / 6)  # a few directions hold most of what tells people apart
    styles = rng.normal(0, 1, (60, dims)) * spread
    person_mean = 0.6 * styles[rng.integers(0, 60, people)] + 0.8 * rng.normal(0, 1, (people, dims)) * spread
    seen = np.minimum(rng.geometric(0.4, people), 8)  # four in ten are seen once
    person = np.repeat(np.arange(people), seen)
    camera = rng.integers(0, cameras, len(person))
    crops = np.ceil(30 ** rng.uniform(0, 1, len(person))).astype(np.int64)
    shift = rng.normal(0, 0.35, (cameras, dims)) * spread
    passage = rng.normal(0, 0.5, (len(person), dims)) * spread  # light, bags and views that all its crops share
    crop = rng.normal(0, noise, (len(person), dims)) * spread / np.sqrt(crops)[:, None]
    mean = person_mean[person] + shift[camera] + passage + crop + 0.5
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    cosine = mean @ mean.T
    cosine[camera[:, None] == camera] = -2
    near = np.argpartition(-cosine, 12, axis=1)[:, :12]
    rows = np.repeat(np.arange(len(person)), 12)
    ends = np.unique(np.sort(np.stack([rows, near.reshape(-1)], 1), axis=1), axis=0)
    left, right = ends[cosine[ends[:, 0], ends[:, 1]] > -2].T
    same = person[left] == person[right]
    gap = rng.normal(np.where(same, speaks / 2, -speaks / 2), 1)
    distance = np.sqrt(np.maximum(2 - 2 * cosine[left, right], 0))
    return Pairs(distance, speaks * gap, crops[left].astype(float), crops[right].astype(float), same, person[left])
