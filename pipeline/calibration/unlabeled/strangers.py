"""Distances of different people: what pairs that cannot be one person, and hardly any that may be, show of them.

Different people who may not meet differ from those who do: they pass the same cameras, in another light. Most pairs of
either kind show different people, and the middle of the distances shows how far the two kinds are apart. Distances are
therefore standardized by the median and the spread above it, for each kind of pair and each number of crops, and only
the shape of f0 below its middle is taken from pairs that are known to be of strangers: those that the gates forbid, and
those whose time hardly any one person has, as far as they do not look like one. The shape is the logarithm of a
density, smooth, and linear beyond the least distances seen; each kind of pairs has its own as far as enough of its
strangers are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from schemas.arrays import Bools, Floats, Ints

#: What a prior of f0 counts, in pairs.
PRIOR_STRANGERS = 1_000.0
_NEWTON_STEPS = 60
#: Keeps the fit of a density away from infinite coefficients where bins are empty.
_RIDGE = 1e-6
#: Forbidden pairs from which on a level above the buildings has a shape of its own.
_ENOUGH = 5_000
#: Known strangers of a kind of pairs, from which on those of the other kinds count less for its shape.
_OWN_SHAPE = 1_000
#: Strangers at one camera, in one light and view, are nearer than at two. Where few of them are known, the slope of the
#: log ratio of both densities is taken from the pairs that may be one person in the first of these ranges of
#: standardized distance, beside the second (docs/experiments.md, 16).
_NEAR, _MIDDLE = (-3.0, -1.5), (-1.5, 0.5)
#: Centers are found on at most so many rows.
_CENTER_ROWS = 20_000
#: Knots of the log density of strangers, as quantiles, of which the lowest need so many rows below them; bins of its
#: histogram.
_KNOT_QUANTILES = (0.0005, 0.004, 0.03, 0.2, 0.5, 0.8)
_KNOT_ROWS = 8
_BIN = 0.1


ONE_CAMERA, SEVERAL = 1, 2


@dataclass(frozen=True)
class Rows:
    """n pairs of a level."""

    different: Bools  # (n,) known to be different people; else they may be one person
    distance: Floats  # (n,)
    share: Floats  # (n,) `few_crops_share`
    weight: Floats  # (n,)
    stratum: Ints  # (n,) kind of pair: ONE_CAMERA, or 0 for two cameras, + SEVERAL where a node is several tracklets
    label: Ints  # (n,) an operator's answer: 1 one person, 0 two people, -1 none
    untimely: Floats  # (n,) may be one person, but hardly by the time: how probably it is two people; else 0


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
    low, high = weighted_quantiles(x, w, (1 / 3, 2 / 3))
    a, b = x <= low, x >= high
    if not a.any() or not b.any() or high <= low:
        return 0.0
    run = np.average(x[b], weights=w[b]) - np.average(x[a], weights=w[a])
    return float((weighted_quantile(y[b], w[b], 0.5) - weighted_quantile(y[a], w[a], 0.5)) / run)


def weighted_quantile(values: Floats, weights: Floats, q: float) -> float:
    """The q-quantile of n weighted values, n > 0."""
    return float(weighted_quantiles(values, weights, (q,))[0])


def weighted_quantiles(values: Floats, weights: Floats, q: Sequence[float] | Floats) -> Floats:
    """(k,) Several quantiles of the same n weighted values, which are sorted once."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    found: Floats = values[order[np.searchsorted(total, np.array(q) * total[-1]).clip(0, len(values) - 1)]]
    return found


class LogDensity:
    """A smooth log density of weighted values: natural cubic spline by Poisson regression (Lindsey 1974)."""

    def __init__(self, z: Floats, weight: Floats) -> None:
        at = weighted_quantiles(z, weight, _KNOT_QUANTILES)
        self._knots = np.unique(at[np.searchsorted(np.sort(z), at) >= np.minimum(_KNOT_ROWS, len(z) // 10)])
        low, high = float(z.min()) - _BIN, float(z.max()) + _BIN
        edges = np.arange(low, high + _BIN, _BIN)
        counts = np.histogram(z, edges, weights=weight / weight.mean())[0]
        middle = (edges[1:] + edges[:-1]) / 2
        # Powers of one variable are nearly collinear: without an orthogonal basis the steps below go astray.
        q, r = np.linalg.qr(self._basis(middle))
        found = q.T @ np.log(counts + counts.mean() / 2)
        least = _loss(q, counts, found)
        for _ in range(_NEWTON_STEPS):
            mean = np.exp(np.clip(q @ found, -50, 50))
            slope = q.T @ (counts - mean) - _RIDGE * found
            step = np.linalg.solve(q.T @ (q * mean[:, None]) + _RIDGE * np.eye(q.shape[1]), slope)
            size = 1.0
            while size > 1e-6 and _loss(q, counts, found + size * step) > least:
                size /= 2
            found = found + size * step
            before, least = least, _loss(q, counts, found)
            if before - least < 1e-9 * abs(least):
                break
        self._beta = np.linalg.solve(r, found)
        mass = float(np.exp(self._basis(middle) @ self._beta).sum()) * _BIN
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


def _loss(q: Floats, counts: Floats, found: Floats) -> float:
    """Penalized negative log-likelihood of Poisson counts, but for a constant."""
    log_mean = np.clip(q @ found, -50, 50)
    return float(np.exp(log_mean).sum() - counts @ log_mean + _RIDGE / 2 * found @ found)


@dataclass(frozen=True)
class Strangers:
    """log f0 of every row, in units of distance, and the standardized distances."""

    log_density: Floats  # (n,)
    z: Floats  # (n,)
    known: Floats  # (m,) standardized distances of known different people, here or below, and a prior
    weight: Floats  # (m,)
    kind: Ints  # (m,) of which kind of pairs, as `Rows.stratum`
    forbidden: int  # how many of them are forbidden pairs
    level: float  # mean over the kinds of pairs: median of the distances that may be one person's
    spread: float  # and the spread above it

    def shape(self, kind: int) -> LogDensity:
        """Of a kind of pairs: its own, as far as enough is known of it."""
        own = self.kind == kind
        others = self.weight * min(1.0, _OWN_SHAPE / max(int(own.sum()), 1))
        return LogDensity(self.known, np.where(own, self.weight, others))


def _steeper(shape: LogDensity, z: Floats, weight: Floats) -> float:
    """How much faster the log density of these distances rises toward the near ones than the shape does; 0 or more."""
    ratios, middles = [], []
    for low, high in (_NEAR, _MIDDLE):
        grid = np.arange(low, high, _BIN / 2)
        density = np.exp(shape(grid))
        inside = (z >= low) & (z < high)
        ratios.append((weight[inside].sum() + 1) / (density.sum() * _BIN / 2 * weight.sum() + 1))
        middles.append(float(np.average(grid, weights=density)))
    return max(0.0, float(np.log(ratios[0] / ratios[1])) / (middles[1] - middles[0]))


def strangers_of(
    rows: Rows,
    below: "Strangers | None" = None,
    prior: Floats | None = None,
    prior_weight: Floats | None = None,
    *,
    nearer: float = 0.0,
) -> Strangers:
    """below: of the level below, whose forbidden pairs count, too: nodes there hold fewer wrong joins.

    nearer: least slope of the log ratio of strangers' densities at one camera and at two, where few of the former are
    known.
    prior: (q,) standardized distances of different people elsewhere, which count as PRIOR_STRANGERS forbidden pairs
    together; prior_weight: (q,) times which each counts.
    """
    strata = int(rows.stratum.max()) + 1
    comparable = ~rows.different
    own = center_of(rows, comparable, strata)
    z = own.standardized(rows)
    if rows.different.any():
        null = center_of(rows, rows.different, strata, own)
        z = np.where(comparable, z, null.standardized(rows))
    late = rows.untimely > 0
    shown = rows.different | late
    counts = rows.weight * np.where(rows.different, 1.0, rows.untimely)
    known, weight, kind, forbidden = z[shown], counts[shown], rows.stratum[shown], int(rows.different.sum())
    if below is not None and forbidden < _ENOUGH:
        # Identities may hold another person's tracklet, which makes a few forbidden pairs alike; tracklets do not. So
        # the forbidden pairs of a level count only where they are many.
        forbidden = below.forbidden
        known, weight = np.append(below.known, z[late]), np.append(below.weight, counts[late])
        kind = np.append(below.kind, rows.stratum[late])
    elif prior is not None:
        each = PRIOR_STRANGERS / len(prior) * (float(weight.mean()) if len(weight) else 1.0)
        known = np.append(known, prior)
        weight = np.append(weight, each * (np.ones(len(prior)) if prior_weight is None else prior_weight))
        kind = np.append(kind, np.zeros(len(prior), np.int64))
    found = Strangers(np.empty(len(z)), z, known, weight, kind, forbidden, 0.0, 0.0)
    for number in np.unique(rows.stratum).tolist():
        its = rows.stratum == number
        shape = found.shape(number)
        log_density = shape(z[its]) - np.log(own.spread[number])
        if number & ONE_CAMERA:
            unknown = max(0.0, 1 - (kind == number).sum() / _OWN_SHAPE)
            slope = max(nearer, _steeper(shape, z[its & comparable], rows.weight[its & comparable]))
            log_density += unknown * slope * np.maximum(_MIDDLE[0] - z[its], 0.0)
        found.log_density[its] = log_density
    kinds = np.bincount(rows.stratum[comparable], minlength=strata)
    return replace(
        found,
        level=float(np.average(own.level, weights=kinds)),
        spread=float(np.average(own.spread, weights=kinds)),
    )
