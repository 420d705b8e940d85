"""The share and the distances of pairs of one person among pairs that may be one.

Pairs that the gates forbid show the distances of different people: f0. Pairs that may be one person are a mixture,
f = (1 - share) f0 + share f1. The probability that a pair of distance d is one person is then share f1(d) / f(d): one
less the local false discovery rate with a known null (Efron 2004); with it, labels are not needed.

Different people who may not meet differ from those who do: they pass the same cameras, in another light. Most pairs of
either kind show different people, and the middle of the distances shows how far the two kinds are apart. Distances are
therefore standardized by the median and the spread above it, for each kind of pair and each number of crops, and only
the shape of f0 below its middle is taken from the forbidden pairs: the logarithm of a density, smooth, and linear
beyond the least distance seen. f1 is normal; its mean depends on the number of crops. Expectation maximization finds
share, mean and spread, with the transit log-odds as a second, independent witness.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from schemas.arrays import Bools, Floats, Ints

#: Standardized distances above this are of strangers.
_STRANGERS_FROM = -0.5
#: The mixture is fitted to the pairs below this. Between the two, where nearly all are of strangers, a small misfit of
#: their density is as many pairs as one person's all together, and draws one person's density toward them.
_FITTED_BELOW = -2.0
#: Mean standardized distance of one person is at most this.
_MOST_MEAN = -1.5
#: Pseudo-counts of the prior of f1, and of a prior of f0.
PRIOR_COUNT = 10.0
PRIOR_STRANGERS = 1_000.0
_NEWTON_STEPS = 60
#: Forbidden pairs from which on a level above the buildings has a shape of its own.
_ENOUGH = 5_000
#: Centers are found on at most so many rows.
_CENTER_ROWS = 20_000
#: Log-odds by which the share of one person's pairs may differ from one kind of pairs to another.
_SHARES_DIFFER = 1.0
#: Log of the largest far spread over the near one.
_MOST_SKEW = 1.0
#: Knots of the log density of strangers, as quantiles; bins of its histogram.
_KNOT_QUANTILES = (0.003, 0.03, 0.2, 0.5, 0.8)
_BIN = 0.1


@dataclass(frozen=True)
class Rows:
    """n pairs of a level."""

    different: Bools  # (n,) known to be different people; else they may be one person
    distance: Floats  # (n,)
    share: Floats  # (n,) `few_crops_share`
    weight: Floats  # (n,)
    stratum: Ints  # (n,) kind of pair, 0 .. strata - 1
    label: Ints  # (n,) an operator's answer: 1 one person, 0 two people, -1 none


@dataclass(frozen=True)
class Center:
    """Median and spread of distances: linear in the share of few crops, other for each stratum."""

    level: Floats  # (strata,)
    slope: float
    spread: Floats  # (strata,)
    middle: float  # mean share

    def standardized(self, rows: Rows) -> Floats:
        center = self.level[rows.stratum] + self.slope * (rows.share - self.middle)
        result: Floats = (rows.distance - center) / self.spread[rows.stratum]
        return result


def center_of(rows: Rows, of: Bools, strata: int, fallback: Center | None = None) -> Center:
    """The center of the rows `of`; strata with few rows take the differences of `fallback`, or the mean."""
    its = np.flatnonzero(of)
    its = its[:: -(-len(its) // _CENTER_ROWS)]
    d, s, w, c = rows.distance[its], rows.share[its], rows.weight[its], rows.stratum[its]
    middle = float(np.average(s, weights=w))
    level = np.zeros(strata)
    slope = 0.0
    for _ in range(5):  # median regression by alternation
        for k in range(strata):
            its = c == k
            level[k] = weighted_quantile((d - slope * (s - middle))[its], w[its], 0.5) if its.sum() >= 5 else np.nan
        rest = d - np.where(np.isnan(level[c]), np.nanmean(level), level[c])
        new = _theil_sen(s - middle, rest, w)
        if abs(new - slope) < 1e-4:
            break
        slope = new
    count = np.array([(c == k).sum() for k in range(strata)], float)
    rest = d - slope * (s - middle)
    pooled: Floats = np.full(strata, weighted_quantile(rest, w, 0.5))
    level = np.where(np.isnan(level), pooled, level)
    # Shrunk to the pooled one.
    if fallback is not None:
        known = np.average(fallback.level, weights=np.maximum(count, 1e-9))
        pooled = pooled + fallback.level - known
    level = (count * level + 50 * pooled) / (count + 50)
    spread = np.empty(strata)
    away = rest - level[c]
    every = weighted_quantile(away[away > 0], w[away > 0], 0.6827)
    for k in range(strata):
        its = (c == k) & (away > 0)
        own = weighted_quantile(away[its], w[its], 0.6827) if its.sum() >= 5 else every
        spread[k] = (its.sum() * own + 50 * every) / (its.sum() + 50)
    return Center(level, slope, spread, middle)


def _theil_sen(x: Floats, y: Floats, w: Floats) -> float:
    """Slope between the medians of the upper and the lower third of x."""
    low, high = weighted_quantile(x, w, 1 / 3), weighted_quantile(x, w, 2 / 3)
    a, b = x <= low, x >= high
    if not a.any() or not b.any() or high <= low:
        return 0.0
    run = np.average(x[b], weights=w[b]) - np.average(x[a], weights=w[a])
    return float((weighted_quantile(y[b], w[b], 0.5) - weighted_quantile(y[a], w[a], 0.5)) / run)


def weighted_quantile(values: Floats, weights: Floats, q: float) -> float:
    """The q-quantile of n weighted values, n > 0."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, q * total[-1]).clip(0, len(values) - 1)])


class LogDensity:
    """A smooth log density of weighted values: natural cubic spline by Poisson regression (Lindsey 1974)."""

    def __init__(self, z: Floats, weight: Floats) -> None:
        self._knots = np.unique([weighted_quantile(z, weight, q) for q in _KNOT_QUANTILES])
        low, high = float(z.min()) - _BIN, float(z.max()) + _BIN
        edges = np.arange(low, high + _BIN, _BIN)
        counts = np.histogram(z, edges, weights=weight / weight.mean())[0]
        middle = (edges[1:] + edges[:-1]) / 2
        x = self._basis(middle)
        scale = np.maximum(np.abs(x).max(axis=0), 1e-9)
        x = x / scale

        ridge = 1e-3 * np.eye(x.shape[1])
        found = np.zeros(x.shape[1])
        found[0] = np.log(max(counts.mean(), 1e-9))
        for _ in range(_NEWTON_STEPS):
            mean = np.exp(np.clip(x @ found, -30, 30))
            step = np.linalg.solve(x.T @ (x * mean[:, None]) + ridge, x.T @ (counts - mean) - ridge @ found)
            found = found + step / max(1.0, float(np.abs(step).max()))
            if float(np.abs(step).max()) < 1e-6:
                break
        self._beta = found / scale
        mass = float(np.exp(x @ found).sum()) * _BIN
        self._beta[0] -= np.log(mass)

    def __call__(self, z: Floats) -> Floats:
        result: Floats = self._basis(z) @ self._beta
        return result

    def _basis(self, z: Floats) -> Floats:
        """Truncated powers that are linear beyond the outer knots."""
        k = self._knots
        columns = [np.ones(len(z)), z]

        def d(j: int) -> Floats:
            cubic = np.maximum(z - k[j], 0) ** 3 - np.maximum(z - k[-1], 0) ** 3
            result: Floats = cubic / (k[-1] - k[j])
            return result

        columns += [d(j) - d(len(k) - 2) for j in range(len(k) - 2)]
        return np.stack(columns, axis=1)


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


@dataclass(frozen=True)
class Strangers:
    """log f0 of every row, in units of distance, and the standardized distances."""

    log_density: Floats  # (n,)
    z: Floats  # (n,)
    known: Floats  # (m,) standardized distances of known different people: forbidden pairs, here or below, and a prior
    weight: Floats  # (m,)
    forbidden: int  # how many of them are forbidden pairs
    level: float  # mean over the kinds of pairs: median of the distances that may be one person's
    spread: float  # and the spread above it


def strangers_of(
    rows: Rows, below: "Strangers | None" = None, prior: Floats | None = None, prior_weight: Floats | None = None
) -> Strangers:
    """below: of the level below, whose forbidden pairs count, too: nodes there hold fewer wrong joins.

    prior: (q,) standardized distances of different people elsewhere, which count as PRIOR_STRANGERS forbidden pairs
    together; prior_weight: (q,) times which each counts.
    """
    strata = int(rows.stratum.max()) + 1
    comparable = ~rows.different
    own = center_of(rows, comparable, strata)
    z = own.standardized(rows)
    known, weight = np.empty(0), np.empty(0)
    if rows.different.any():
        null = center_of(rows, rows.different, strata, own)
        z = np.where(comparable, z, null.standardized(rows))
        known, weight = z[rows.different], rows.weight[rows.different]
    forbidden = len(known)
    if below is not None and forbidden < _ENOUGH:
        # Identities may hold another person's tracklet, which makes a few forbidden pairs alike; tracklets do not. So
        # the forbidden pairs of a level count only where they are many.
        known, weight, forbidden = below.known, below.weight, below.forbidden
    elif prior is not None:
        each = PRIOR_STRANGERS / len(prior) * (float(weight.mean()) if forbidden else 1.0)
        known = np.append(known, prior)
        weight = np.append(weight, each * (np.ones(len(prior)) if prior_weight is None else prior_weight))
    shape = LogDensity(known, weight)
    kinds = np.bincount(rows.stratum[comparable], minlength=strata)
    return Strangers(
        shape(z) - np.log(own.spread[rows.stratum]),
        z,
        known,
        weight,
        forbidden,
        float(np.average(own.level, weights=kinds)),
        float(np.average(own.spread, weights=kinds)),
    )


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
