"""From likelihood ratios to the posterior of each identity and of "not here", over everything that was compared.

A person who is here has one identity or, where the pipeline could not join all passages, several. Their number is taken
as a Poisson variable that is not zero, spread evenly over the N identities: with o = m / N, a likelihood ratio r_i for
each, and the prior probability h that the person is here,

    p(distances | here) = (prod_i (1 + o r_i) - 1) / ((1 + o)^N - 1)            p(distances | not here) = 1

    p(identity i) = h / ((1 + o)^N - 1) * o r_i * prod_{j != i} (1 + o r_j) / Z     p(not here) = (1 - h) / Z

With m near 0 (one identity) this is prior_i r_i / (prior_absent + sum_j prior_j r_j). Several identities of one person
do not take each other's probability away.

Look-alikes and identities that mix people are near the probe as well, at any size of the city. Each identity is one of
the c of them with probability c / N. The likelihood ratio of their distances against other strangers is l^a, a <= 1,
with l the person's. Time and place are theirs by chance, as any stranger's. So r_i counts as r_i / (1 + l_i^a c / N).

Parts of a city are merged by `Evidence`: add it up, then compute the posterior of the sum.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from schemas.arrays import Floats
from schemas.calibration import SearchCalibration
from schemas.parameters import SearchEvidence

#: Likelihood ratios kept one by one; of the others the sum is kept, which suffices where each is small.
KEPT = 200


@dataclass(frozen=True)
class Evidence:
    """Log likelihood ratios of all identities that a probe was compared with, in one part of a city or in several."""

    best: Floats  # (at most KEPT,) of look, time and place; descending
    look: Floats  # (at most KEPT,) of the look alone, of the same identities
    log_rest: float  # log of the sum of the likelihood ratios of all others; -inf where there are none
    count: int  # identities

    @classmethod
    def of(cls, log_ratio: Floats, look: Floats | None = None) -> "Evidence":
        """log_ratio, look: (n,) of the identities of a part, in any order; one and the same unless `look` is given."""
        return cls(log_ratio, log_ratio if look is None else look, -np.inf, len(log_ratio))._kept()

    def __add__(self, other: "Evidence") -> "Evidence":
        rest = float(np.logaddexp(self.log_rest, other.log_rest))
        best, look = np.concatenate([self.best, other.best]), np.concatenate([self.look, other.look])
        return Evidence(best, look, rest, self.count + other.count)._kept()

    @classmethod
    def read(cls, stated: SearchEvidence) -> "Evidence":
        """As another database states it."""
        rest = -np.inf if stated.log_rest is None else stated.log_rest
        return cls(np.array(stated.best, np.float64), np.array(stated.look, np.float64), rest, stated.count)

    def stated(self, calibration: SearchCalibration) -> SearchEvidence:
        """As other databases may read it: without those who are impossible, whose ratio is 0, but for their number."""
        possible = np.isfinite(self.best)
        return SearchEvidence(
            calibration=calibration,
            best=tuple(self.best[possible].tolist()),
            look=tuple(self.look[possible].tolist()),
            log_rest=self.log_rest if math.isfinite(self.log_rest) else None,
            count=self.count,
        )

    @property
    def log_sum(self) -> float:
        """Log of the sum of all likelihood ratios; -inf for nothing compared."""
        return float(logsumexp(np.append(self.best, self.log_rest)))

    def _kept(self) -> "Evidence":
        order = np.argsort(-self.best, kind="stable")
        rest = float(logsumexp(np.append(self.best[order[KEPT:]], self.log_rest)))
        return Evidence(self.best[order[:KEPT]], self.look[order[:KEPT]], rest, self.count)


@dataclass(frozen=True)
class Posterior:
    """The posterior of one search."""

    not_here: float
    _log_odds: float  # o
    _log_confusions: float  # c / N
    _power: float  # a
    _log_here: float  # log of h prod_i (1 + o r_i) / ((1 + o)^N - 1) / Z

    def of(self, log_ratio: float, look: float | None = None) -> float:
        """The probability that an identity with this log likelihood ratio, one of those compared, is the person.

        look: that of its look alone; the same unless given.
        """
        return float(self.each(np.array([log_ratio]), np.array([log_ratio if look is None else look]))[0])

    def each(self, log_ratio: Floats, look: Floats) -> Floats:
        """(n,) The same for n identities."""
        confusion = np.logaddexp(0.0, self._power * look + self._log_confusions)
        odds = self._log_odds + log_ratio - confusion
        return np.asarray(np.minimum(1.0, math.exp(self._log_here) * expit(odds)), np.float64)


def posterior(evidence: Evidence, calibration: SearchCalibration) -> Posterior:
    """The posterior over everything that `evidence` adds up."""
    n = max(evidence.count, 1)
    log_odds = math.log(poisson_mean(calibration.identities) / n)
    log_confusions = math.log(calibration.confusions / n) if calibration.confusions else -math.inf
    power = calibration.confusion_power
    best = np.asarray(evidence.best)
    confusion = power * np.asarray(evidence.look) + log_confusions
    each = np.logaddexp(0.0, log_odds + best - np.logaddexp(0.0, confusion))
    # Those beyond the kept ones are small: log(1 + o r) is o r.
    product = float(each.sum()) + math.exp(log_odds + evidence.log_rest)
    log_all = _log_expm1(n * _log1p_exp(log_odds))  # (1 + o)^N - 1
    log_h, log_absent = math.log(calibration.here), math.log1p(-calibration.here)
    log_z = float(np.logaddexp(log_absent, log_h - log_all + _log_expm1(product)))
    return Posterior(
        not_here=math.exp(log_absent - log_z),
        _log_odds=log_odds,
        _log_confusions=log_confusions,
        _power=power,
        _log_here=log_h - log_all + product - log_z,
    )


def poisson_mean(identities: float) -> float:
    """The mean of the Poisson variable that has this mean where it is not zero; `identities` of at least 1."""
    if identities <= 1 + 1e-9:
        return 1e-12
    return float(brentq(lambda mean: mean / -math.expm1(-mean) - identities, 1e-9, identities))


def _log1p_exp(x: float) -> float:
    return float(np.logaddexp(0.0, x))


def _log_expm1(x: float) -> float:
    """log(exp(x) - 1); -inf for 0."""
    if x <= 0:
        return -math.inf
    return x + math.log(-math.expm1(-x))
