"""Reliability of calibrated probabilities, and the false-merge rate with its confidence interval.

Probabilities are judged on all shortlisted pairs, and again on those between 0.05 and 0.95: most shortlisted pairs are
easy, and hide the others in a curve over all.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import beta, t

from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import FalseMerges, Judgment, Reliability

BINS = 15
MIDDLE = (0.05, 0.95)
#: Confidence of the intervals of `false_merges`.
_CONFIDENCE = 0.95


def judge(probability: Floats, same: Bools) -> Judgment:
    """Judges n shortlisted pairs, whose probabilities (n,) were fitted on other people. same: (n,) one person."""
    middle = (probability >= MIDDLE[0]) & (probability <= MIDDLE[1])
    return Judgment(shortlist=reliability(probability, same), middle=reliability(probability[middle], same[middle]))


def reliability(probability: Floats, same: Bools) -> Reliability:
    """The reliability curve of n pairs in bins of equal mass; empty, with error 0, for n = 0.

    Equal probabilities share a bin.
    """
    assert len(probability) == len(same), "one label for each probability"
    _, value, count = np.unique(probability, return_inverse=True, return_counts=True)
    mid_rank = (count.cumsum() - count / 2) / max(len(probability), 1)
    bin_of = np.minimum((mid_rank * BINS).astype(np.int64), BINS - 1)[value.reshape(-1)]
    counts = np.bincount(bin_of, minlength=BINS)
    filled = counts > 0
    predicted = np.bincount(bin_of, probability, BINS)[filled] / counts[filled]
    observed = np.bincount(bin_of, same, BINS)[filled] / counts[filled]
    error = np.sum(counts[filled] * np.abs(predicted - observed)) / max(len(probability), 1)
    return Reliability(
        predicted=tuple(predicted.tolist()),
        observed=tuple(observed.tolist()),
        counts=tuple(counts[filled].tolist()),
        ece=float(error),
    )


class Joins(NamedTuple):
    """j joins made at a threshold."""

    threshold: float  # log-odds
    wrong: Bools  # (j,) whether it joins two people
    group: Ints  # (j,) number of its person, seed or city; joins of one group are not independent


def false_merges(joins: Joins) -> FalseMerges:
    """The false-merge rate and its Clopper-Pearson interval for clustered data (Korn and Graubard 1998).

    The number of joins is divided by the design effect: the variance of the rate between groups (by linearization,
    which agrees with a bootstrap over groups) over that of independent joins. Where all joins are right, or all wrong,
    each group counts as one join. Fresh joins vary as well: their interval is that of half as many joins.
    """
    threshold, wrong, group = joins
    assert len(wrong) == len(group), "one group for each join"
    n, x = len(wrong), int(wrong.sum())
    if not n:
        none = dict.fromkeys(("rate", "low", "fresh_low"), 0.0) | dict.fromkeys(("high", "fresh_high"), 1.0)
        return FalseMerges(threshold=threshold, joins=0, wrong=0, groups=0, **none)
    _, index = np.unique(group, return_inverse=True)
    g, rate = int(index.max()) + 1, x / n
    excess = np.bincount(index.reshape(-1), wrong - rate)  # (g,) wrong joins beyond the rate
    if g > 1 and 0 < x < n:
        variance = g / (g - 1) * float(excess @ excess) / n**2
        tails = (t.ppf((1 + _CONFIDENCE) / 2, n - 1) / t.ppf((1 + _CONFIDENCE) / 2, g - 1)) ** 2
        effective = min(rate * (1 - rate) / variance, n) * tails
    else:
        effective = float(g)
    low, high = _interval(rate, effective)
    fresh_low, fresh_high = _interval(rate, effective / 2)
    return FalseMerges(
        threshold=threshold,
        joins=n,
        wrong=x,
        groups=g,
        rate=rate,
        low=low,
        high=high,
        fresh_low=fresh_low,
        fresh_high=fresh_high,
    )


def _interval(rate: float, effective: float) -> tuple[float, float]:
    """Interval of a rate among `effective` independent joins (Clopper and Pearson 1934)."""
    hits, tail = effective * rate, (1 - _CONFIDENCE) / 2
    low = 0.0 if rate == 0 else float(beta.ppf(tail, hits, effective - hits + 1))
    high = 1.0 if rate == 1 else float(beta.ppf(1 - tail, hits + 1, effective - hits))
    return low, high
