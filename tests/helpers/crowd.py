"""A small crowd: people with a look of their own, and their passages before six cameras, with noise."""

import numpy as np

from pipeline.accuracy.baselines import LabeledPassages, Passages
from schemas.arrays import Ints

CAMERAS = 6


def crowd(
    seed: int, people: int = 12, passages: int = 90, noise: float = 0.7, slack_s: float = 20.0, width: int = 32
) -> LabeledPassages:
    """From one camera to another nobody gets in less than `slack_s`; two views overlap. Truth keeps to the gates."""
    rng = np.random.default_rng(seed)
    slack = np.full((CAMERAS, CAMERAS), slack_s * 1e6)
    np.fill_diagonal(slack, 0.0)
    slack[0, 1] = slack[1, 0] = -np.inf
    truth = rng.integers(0, people, passages)
    turn = np.zeros(passages, dtype=np.int64)  # a person's passages follow one another
    for person in range(people):
        turn[truth == person] = np.arange((truth == person).sum())
    start = rng.integers(0, 60_000_000, people)[truth] + turn * 90_000_000
    looks = rng.normal(size=(people, width)) + 0.5
    return LabeledPassages(
        Passages(
            features=looks[truth] + noise * rng.normal(size=(passages, width)),
            camera=rng.integers(0, CAMERAS, passages),
            start_us=start,
            end_us=start + rng.integers(2_000_000, 20_000_000, passages),
            slack=lambda a, b: slack[a, b],
        ),
        truth,
        rng.integers(1, 9, passages),
    )


def same(a: Ints, b: Ints) -> bool:
    """Whether two groupings are one, whatever the groups are called."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))
