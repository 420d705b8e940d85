"""A small crowd: people with features of their own, and their noisy passages at six cameras."""

import numpy as np

from pipeline.accuracy.baselines import LabeledPassages, Passages
from schemas.arrays import Ints

CAMERAS = 6


def crowd(
    seed: int, people: int = 12, passages: int = 90, noise: float = 0.7, min_gap_s: float = 20.0, width: int = 32
) -> LabeledPassages:
    """A walk between cameras takes at least `min_gap_s`; two views overlap. The truth respects the gates."""
    rng = np.random.default_rng(seed)
    min_gap = np.full((CAMERAS, CAMERAS), min_gap_s * 1e6)
    np.fill_diagonal(min_gap, 0.0)
    min_gap[0, 1] = min_gap[1, 0] = -np.inf
    truth = rng.integers(0, people, passages)
    turn = np.zeros(passages, dtype=np.int64)  # number of each passage among those of its person
    for person in range(people):
        turn[truth == person] = np.arange((truth == person).sum())
    start = rng.integers(0, 60_000_000, people)[truth] + turn * 90_000_000
    means = rng.normal(size=(people, width)) + 0.5
    return LabeledPassages(
        Passages(
            features=means[truth] + noise * rng.normal(size=(passages, width)),
            camera=rng.integers(0, CAMERAS, passages),
            start_us=start,
            end_us=start + rng.integers(2_000_000, 20_000_000, passages),
            min_gap=lambda a, b: min_gap[a, b],
        ),
        truth,
        rng.integers(1, 9, passages),
    )


def same(a: Ints, b: Ints) -> bool:
    """Whether two groupings are equal up to the numbers of the groups."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))
