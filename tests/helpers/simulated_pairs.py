"""Shortlisted pairs of simulated people, with look-alikes, camera shifts, and means over few or many crops."""

from dataclasses import dataclass

import numpy as np

from schemas.arrays import Bools, Floats, Ints


@dataclass(frozen=True)
class Pairs:
    """p pairs with their truth."""

    distance: Floats  # (p,) Euclidean, between features of length 1
    transit: Floats  # (p,) the true log likelihood ratio of the gap
    left_weight: Floats  # (p,) number of crops
    right_weight: Floats  # (p,)
    same: Bools  # (p,)
    person: Ints  # (p,) of the left side


def simulated_pairs(seed: int, people: int = 1_500, *, noise: float = 1.2, separation: float = 1.5) -> Pairs:
    """Each tracklet with its 12 nearest at other cameras, by cosine; every pair once.

    noise: standard deviation of one crop; that between people is 1. separation: distance between the means of one
    person's and strangers' gaps, both normal with standard deviation 1.
    """
    rng = np.random.default_rng([seed, 99])
    dims, cameras = 48, 20
    spread = 1 / np.sqrt(1 + np.arange(dims) / 6)  # most of the variance between people lies in a few directions
    styles = rng.normal(0, 1, (60, dims)) * spread
    person_mean = 0.6 * styles[rng.integers(0, 60, people)] + 0.8 * rng.normal(0, 1, (people, dims)) * spread
    seen = np.minimum(rng.geometric(0.4, people), 8)  # four in ten people are seen once
    person = np.repeat(np.arange(people), seen)
    camera = rng.integers(0, cameras, len(person))
    crops = np.ceil(30 ** rng.uniform(0, 1, len(person))).astype(np.int64)
    shift = rng.normal(0, 0.35, (cameras, dims)) * spread
    passage = rng.normal(0, 0.5, (len(person), dims)) * spread  # light, bag and view
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
    gap = rng.normal(np.where(same, separation / 2, -separation / 2), 1)
    distance = np.sqrt(np.maximum(2 - 2 * cosine[left, right], 0))
    return Pairs(distance, separation * gap, crops[left].astype(float), crops[right].astype(float), same, person[left])
