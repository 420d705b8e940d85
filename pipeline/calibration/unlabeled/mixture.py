"""The share and the distances of pairs of one person among pairs that may be one.

Pairs that the gates forbid show the distances of different people: f0. Pairs that may be one person are a mixture,
f = (1 - share) f0 + share f1. The probability that a pair of distance d is one person is then share f1(d) / f(d): one
less the local false discovery rate with a known null (Efron 2004); with it, labels are not needed.

f0 comes from `strangers`. f1 is normal; its mean depends on the number of crops. Expectation maximization finds
share, mean and spread, with the transit log-odds as a second, independent witness.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.calibration.unlabeled.strangers import Rows, Strangers
from schemas.arrays import Floats

#: Standardized distances above this are of strangers.
_STRANGERS_FROM = -0.5
#: The mixture is fitted to the pairs below this. Between the two, where nearly all are of strangers, a small misfit of
#: their density is as many pairs as one person's all together, and draws one person's density toward them.
_FITTED_BELOW = -2.0
#: Mean standardized distance of one person is at most this.
_MOST_MEAN = -1.5
#: Pseudo-counts of the prior of f1.
PRIOR_COUNT = 10.0
#: Log-odds by which the share of one person's pairs may differ from one kind of pairs to another.
_SHARES_DIFFER = 1.0
#: Log of the largest far spread over the near one.
_MOST_SKEW = 1.0


@dataclass(frozen=True)
class OnePerson:
    """f1: a normal density with another spread on either side, in units of distance."""

    mode: float  # at the middle share
    slope: float  # per share of few crops
    near: float  # spread below the mode
    far: float  # spread above it
    middle: float

    def log_density(self, distance: Floats, share: Floats) -> Floats:
        away = distance - self.mode - self.slope * (share - self.middle)
        scaled = away / np.where(away < 0, self.near, self.far)
        return np.asarray(-0.5 * scaled**2 - np.log((self.near + self.far) * np.sqrt(np.pi / 2)), np.float64)

    def log_density_or_more(self, distance: Floats, share: Floats) -> Floats:
        """The same; below the mode as at the mode, so that a nearer pair is never less likely to be one person."""
        return self.log_density(np.maximum(distance, self.mode + self.slope * (share - self.middle)), share)

    def at(self, middle: float) -> "OnePerson":
        """The same density around another middle share."""
        return OnePerson(self.mode + self.slope * (middle - self.middle), self.slope, self.near, self.far, middle)


@dataclass(frozen=True)
class Mixture:
    one_person: OnePerson
    share: float  # of the pairs that may be one person, those that are
    prior_odds: Floats  # (n,) log-odds of the share among each row's kind of pairs
    log_ratio: Floats  # (n,) log f1 / f0 of all rows
    probability: Floats  # (n,) that each row is one person; 0 of forbidden pairs
    gain: float  # log-likelihood above that of no pairs of one person


def fit_mixture(
    rows: Rows,
    strangers: Strangers,
    transit: Floats,
    prior: OnePerson | None,
    least: float,
    start: Mixture | None = None,
) -> Mixture:
    """Maximizes the likelihood of the pairs that may be one person.

    transit: (n,) log-odds of the transit time. prior: of the level below, or of the model. least: mean distance of
    parts of tracklets; pairs of one person at two places are at least as far apart. start: a similar fit to start from.
    """
    comparable = ~rows.different
    may = comparable & ((strangers.z < _FITTED_BELOW) | (rows.label == 1))
    d, s, w, t = rows.distance[may], rows.share[may], rows.weight[may], transit[may]
    log_f0, label = strangers.log_density[may], rows.label[may]
    kind, kinds = rows.stratum[may], int(rows.stratum.max()) + 1
    totals = np.bincount(rows.stratum[comparable], rows.weight[comparable], kinds)
    middle = float(np.average(s, weights=w))
    at_most = np.polyfit(strangers.z[may], d, 1) @ [_MOST_MEAN, 1.0]
    most = max(float(at_most), least + 1e-3)
    width = most - least
    anchor = None if prior is None else prior.at(middle)

    # theta: log-odds of the share, of whom the four of one_of, then for each kind of pairs what its share differs by.
    def one_of(theta: Floats) -> OnePerson:
        near = float(np.exp(theta[3]))
        return OnePerson(float(theta[1]), float(theta[2]), near, near * float(np.exp(theta[4])), middle)

    if anchor is None:
        center = np.array([0.0, 0.0, 0.0, np.log(width / 4), 0.3])
        pull = np.array([0.0, 0.0, 1 / width**2, 1.0, 1.0])
        ceiling = most
    else:
        center = np.array([0.0, anchor.mode, anchor.slope, np.log(anchor.near), np.log(anchor.far / anchor.near)])
        narrow = min(anchor.near, anchor.far)  # the far side bounds how near to strangers the mode may lie
        pull = PRIOR_COUNT * np.array([0.0, 1 / narrow**2, 1 / width**2, 4.0, 4.0])
        ceiling = max(min(most, anchor.mode + 0.5 * narrow), least)

    center = np.append(center, np.zeros(kinds))
    pull = np.append(pull, np.full(kinds, 1 / _SHARES_DIFFER**2))

    def loss(theta: Floats) -> tuple[float, Floats]:
        one = one_of(theta)
        shares = theta[0] + theta[5:]
        away = d - one.mode - one.slope * (s - middle)
        below = away < 0
        scaled = away / np.where(below, one.near, one.far)
        density = -0.5 * scaled**2 - np.log((one.near + one.far) * np.sqrt(np.pi / 2))
        odds = shares[kind] + t + density - log_f0
        each = np.where(label == 1, odds, np.where(label == 0, 0.0, np.logaddexp(0.0, odds)))
        by_odds = w * np.where(label == 1, 1.0, np.where(label == 0, 0.0, expit(odds)))
        apart = theta - center
        value = -float(w @ each) + float(totals @ np.logaddexp(0.0, shares)) + 0.5 * float(pull @ apart**2)
        by_share = np.bincount(kind, by_odds, kinds) - totals * expit(shares)
        by_mode = scaled / np.where(below, one.near, one.far)
        by_far = np.where(below, 0.0, scaled**2) - one.far / (one.near + one.far)
        gradient = -np.array(
            [
                by_share.sum(),
                by_odds @ by_mode,
                by_odds @ (by_mode * (s - middle)),
                by_odds @ (scaled**2 - 1),
                by_odds @ by_far,
                *by_share,
            ]
        )
        return value, gradient + pull * apart

    bounds = [
        (-20.0, 0.0),
        (least - 0.5 * width, ceiling),
        (-4 * width, 6 * width),
        (np.log(0.03 * width), np.log(width)),
        # With nothing to start from, the far part of strangers is taken for one person's where the near side is wide.
        (0.0 if anchor is None and not (label >= 0).all() else -_MOST_SKEW, _MOST_SKEW),
        *[(-10.0, 10.0)] * kinds,
    ]
    best, least_loss = np.empty(0), np.inf
    parts = (0.15, 0.5, 0.8)
    starts = (
        [center[1:5]]
        if anchor is not None
        else [np.array([least + part * width, 0.0, np.log(width / 5), 0.3]) for part in parts]
    )
    if start is not None:
        of = start.one_person.at(middle)
        starts = [np.array([of.mode, of.slope, np.log(of.near), np.log(of.far / of.near)])]
    for first in starts:
        begin = np.concatenate([[-4.0], first, np.zeros(kinds)])
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds)
        if found.fun < least_loss:
            best, least_loss = found.x, float(found.fun)
    one = one_of(best)
    nothing = best.copy()
    nothing[0], nothing[5:] = -20.0, 0.0
    prior_odds = (best[0] + best[5:])[rows.stratum]
    ratio = one.log_density_or_more(rows.distance, rows.share) - strangers.log_density
    probability = np.where(comparable & (strangers.z < _STRANGERS_FROM), expit(prior_odds + ratio + transit), 0.0)
    probability = np.where(rows.label == 1, 1.0, np.where(rows.label == 0, 0.0, probability))
    share = float(np.average(expit(best[0] + best[5:]), weights=totals))
    return Mixture(one, share, prior_odds, ratio, probability, loss(nothing)[0] - least_loss)
