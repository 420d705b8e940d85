"""How far a probability can be believed, the threshold for a stated false-merge rate, and whether data have drifted.

Probabilities are judged on the pairs that were shortlisted, and again on the middle, 0.05 .. 0.95: most pairs of a
shortlist are easy, and a curve of all shows little else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import beta, chi2, t

from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import FalseMerges, Judgment, Profile, Reliability
from schemas.errors import InputError
from schemas.settings import Frozen

BINS = 15
MIDDLE = (0.05, 0.95)
#: A population stability index above this is a drift (Siddiqi 2006: below 0.1 none, above 0.25 a large one).
PSI_LIMIT = 0.25
#: A distance of the two distribution functions above this is a drift, in whatever direction.
KS_LIMIT = 0.15
#: With few values both are large by chance: the limits are then those that chance passes once in a hundred times.
_CHANCE = 0.01


# ---- reliability


def judge(probability: Floats, same: Bools) -> Judgment:
    """Of n shortlisted pairs, whose probabilities were fitted on other people."""
    middle = (probability >= MIDDLE[0]) & (probability <= MIDDLE[1])
    return Judgment(shortlist=reliability(probability, same), middle=reliability(probability[middle], same[middle]))


def reliability(probability: Floats, same: Bools, bins: int = BINS) -> Reliability:
    """The curve of n pairs; without any it is empty and its error 0. Equal probabilities share a bin."""
    assert len(probability) == len(same), "one label for each probability"
    _, value, many = np.unique(probability, return_inverse=True, return_counts=True)
    middle = (many.cumsum() - many / 2) / max(len(probability), 1)
    place = np.minimum((middle * bins).astype(np.int64), bins - 1)[value.reshape(-1)]
    counts = np.bincount(place, minlength=bins)
    held = counts > 0
    predicted = np.bincount(place, probability, bins)[held] / counts[held]
    observed = np.bincount(place, same, bins)[held] / counts[held]
    error = np.sum(counts[held] * np.abs(predicted - observed)) / max(len(probability), 1)
    return Reliability(
        predicted=tuple(predicted.tolist()),
        observed=tuple(observed.tolist()),
        counts=tuple(counts[held].tolist()),
        ece=float(error),
    )


# ---- the threshold


class Joins(NamedTuple):
    """The joins that would be made at a threshold."""

    threshold: float
    wrong: Bools  # (j,) joins two people
    group: Ints  # (j,) whose join it is: joins of one group are not independent


def false_merges(joins: Joins, confidence: float = 0.95) -> FalseMerges:
    """The rate and its Clopper-Pearson interval for clustered data (Korn and Graubard 1998).

    The number of joins is divided by the design effect: the variance of the rate between groups (by linearisation,
    which a bootstrap over groups agrees with) over that of independent joins. Where all joins are right, or all are
    wrong, a group counts as one join. Fresh joins vary themselves: half as many count for their interval.
    """
    threshold, wrong, group = joins
    assert len(wrong) == len(group), "one group for each join"
    n, x = len(wrong), int(wrong.sum())
    if not n:
        none = dict.fromkeys(("rate", "low", "fresh_low"), 0.0) | dict.fromkeys(("high", "fresh_high"), 1.0)
        return FalseMerges(threshold=threshold, joins=0, wrong=0, groups=0, **none)
    _, place = np.unique(group, return_inverse=True)
    g, rate = int(place.max()) + 1, x / n
    excess = np.bincount(place.reshape(-1), wrong - rate)  # of each group
    if g > 1 and 0 < x < n:
        variance = g / (g - 1) * float(excess @ excess) / n**2
        tails = (t.ppf((1 + confidence) / 2, n - 1) / t.ppf((1 + confidence) / 2, g - 1)) ** 2
        effective = min(rate * (1 - rate) / variance, n) * tails
    else:
        effective = float(g)
    low, high = _interval(rate, effective, confidence)
    fresh_low, fresh_high = _interval(rate, effective / 2, confidence)
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


def _interval(rate: float, effective: float, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson 1934, of a rate among `effective` independent joins."""
    hits, tail = effective * rate, (1 - confidence) / 2
    low = 0.0 if rate == 0 else float(beta.ppf(tail, hits, effective - hits + 1))
    high = 1.0 if rate == 1 else float(beta.ppf(1 - tail, hits + 1, effective - hits))
    return low, high


def choose_threshold(tried: Sequence[Joins], most_wrong: float) -> FalseMerges:
    """The smallest threshold at which at most `most_wrong` of the joins made join two people.

    Raises InputError where no threshold that was tried makes any join and keeps the rate.
    """
    found = [false_merges(joins) for joins in sorted(tried, key=lambda joins: joins.threshold) if len(joins.wrong)]
    for at in found:
        if at.rate <= most_wrong:
            return at
    least = f"the least is {min(at.rate for at in found):.2%}" if found else "none makes any join"
    raise InputError(
        f"at none of {len(tried)} thresholds are at most {most_wrong:.2%} of the joins wrong ({least}); "
        "calibrate on more labeled data, or state a higher rate"
    )


# ---- drift


class Drift(Frozen):
    psi: float = Field(description="population stability index over the profile's ten bins")
    psi_limit: float
    ks: float = Field(description="Kolmogorov-Smirnov distance, at the profile's deciles")
    ks_limit: float
    count: int = Field(description="values compared")

    @property
    def drifted(self) -> bool:
        """Whether a report should warn that the calibration is of other data."""
        return self.psi > self.psi_limit or self.ks > self.ks_limit


def profile(values: Floats) -> Profile:
    """Of n values, n > 0."""
    assert len(values), "nothing to make a profile of"
    deciles = np.quantile(values, np.arange(1, 10) / 10)
    return Profile(deciles=tuple(deciles.tolist()), shares=tuple(_shares(values, deciles).tolist()), count=len(values))


def drift(before: Profile, values: Floats) -> Drift:
    """How far n new values are from the profile. Limits are wider for few values; without any, nothing drifts."""
    expected, many = np.array(before.shares), len(values)
    if not many:
        return Drift(psi=0.0, psi_limit=PSI_LIMIT, ks=0.0, ks_limit=KS_LIMIT, count=0)
    seen = _shares(values, np.array(before.deciles))
    chance = 1 / before.count + 1 / many
    # Half a value in each bin keeps an empty one from an infinite logarithm.
    a = (expected * before.count + 0.5) / (before.count + 0.5 * len(expected))
    b = (seen * many + 0.5) / (many + 0.5 * len(expected))
    return Drift(
        psi=float(np.sum((b - a) * np.log(b / a))),
        psi_limit=max(PSI_LIMIT, float(chi2.ppf(1 - _CHANCE, len(expected) - 1)) * chance),
        ks=float(np.abs(np.cumsum(seen - expected))[:-1].max()),
        ks_limit=max(KS_LIMIT, float(np.sqrt(-np.log(_CHANCE / 2) / 2 * chance))),
        count=many,
    )


def _shares(values: Floats, edges: NDArray[np.float64]) -> Floats:
    return np.asarray(np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values))
