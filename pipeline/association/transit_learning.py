"""Learning a level's transit times from joins and from compared strangers.

Where a join may be wrong, the caller gives the probability that it is right. Expectation maximization then splits the
joins into one person's and strangers' gaps; the strangers' distribution is known from the compared strangers.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.association.transit import (
    BINS,
    KINDS,
    MIN_EXPECTED_S,
    PSEUDO_COUNT,
    UNKNOWN,
    interpolate,
    route_kinds,
    route_numbers,
    soft_bins,
    strangers_prior,
    walking_prior,
)
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import Route, TransitTimes

#: Each gap is spread by this much to either side, as two wrong clocks would, seconds.
_CLOCK_S = 1.0
#: A route with fewer joins than this gets no row of its own.
_MIN_ROUTE_JOINS = 3.0
_EM_ITERATIONS = 30
#: Counts are rounded to multiples of this, so that their sums do not depend on the order of the pairs.
_COUNT_UNIT = 2.0**-20


def learn_times(
    lookback_s: float,
    children: Sequence[str],
    left_child: Ints,
    right_child: Ints,
    expected_s: Floats,
    gap_s: Floats,
    is_same: Bools,
    *,
    probability: Floats | None = None,
) -> TransitTimes:
    """A level's transit times from p pairs that the level compared, in any order. All arrays (p,).

    children: codes of the children of all units of the level; left_child and right_child are indices into it.
    expected_s, gap_s: as for `UnitTransit.log_odds`. is_same: whether the pair is a join; else it is of strangers.
    probability: that a join is right, judged without its time, since times would confirm themselves. None: all are.
    """
    assert len(left_child) == len(right_child) == len(expected_s) == len(gap_s) == len(is_same), "equal lengths"
    assert np.isfinite(gap_s).all(), "each pair needs a gap"
    kind = route_kinds(left_child, right_child, expected_s)
    strangers, compared = _strangers(kind[~is_same], gap_s[~is_same], lookback_s)

    kind, gap = kind[is_same], gap_s[is_same]
    relative = kind < UNKNOWN
    scale = np.where(relative, np.maximum(expected_s[is_same], MIN_EXPECTED_S), 1.0)
    right = np.ones(len(gap))
    if probability is not None:
        right = _right_joins(kind, gap, scale, probability[is_same], strangers)
    same = _same(_counts(kind, KINDS, gap, scale, right), strangers)
    joins = _exact_sum(kind, right, KINDS)
    return TransitTimes(
        lookback_s=lookback_s,
        same=_rounded_rows(same),
        strangers=_rounded_rows(strangers),
        kind_log_ratios=tuple(np.round(_kind_log_ratios(joins, compared), 9).tolist()),
        routes=_routes(children, left_child[is_same], right_child[is_same], relative, gap, scale, right),
        joins=round(float(joins.sum()), 3),
        compared=round(float(compared.sum()), 3),
        wrong_share=round(float(1 - joins.sum() / len(gap)) if len(gap) else 0.0, 6),
    )


def _strangers(kind: Ints, gap: Floats, lookback_s: float) -> tuple[Floats, Floats]:
    """(KINDS, BINS) shares of strangers' gaps in seconds, and (KINDS,) the number of pairs."""
    counts = _counts(kind, KINDS, gap, np.ones(len(gap)), np.ones(len(gap)))
    over_all_kinds = _shares(counts.sum(axis=0), strangers_prior(lookback_s))
    return _shares(counts, over_all_kinds), counts.sum(axis=1)


def _same(counts: Floats, strangers: Floats) -> Floats:
    """(KINDS, BINS) shares of one person's gaps.

    The prior of a kind with expected times is the mean over all those kinds, whose own prior is walking speed; that of
    the others is the strangers' distribution.
    """
    over_known_kinds = _shares(counts[:UNKNOWN].sum(axis=0), walking_prior())
    known, others = _shares(counts[:UNKNOWN], over_known_kinds), _shares(counts[UNKNOWN:], strangers[UNKNOWN:])
    return np.concatenate([known, others])


def _shares(counts: Floats, prior: Floats) -> Floats:
    """(..., BINS) Shares under a Dirichlet prior of PSEUDO_COUNT counts."""
    shares: Floats = (counts + PSEUDO_COUNT * prior) / (counts.sum(axis=-1, keepdims=True) + PSEUDO_COUNT)
    return shares


def _kind_log_ratios(joins: Floats, compared: Floats) -> Floats:
    """(KINDS,) log of each kind's share among joins / among compared strangers; 0 where neither was seen.

    Observed over expected counts with a gamma prior around 1 (DuMouchel 1999), so that a rare kind says little.
    """
    expected = joins.sum() * compared / max(compared.sum(), 1.0)
    ratio = (joins + PSEUDO_COUNT / 4) / (expected + PSEUDO_COUNT / 4)
    return np.asarray(np.log(ratio)) * bool(compared.sum())


def _right_joins(kind: Ints, gap: Floats, scale: Floats, probability: Floats, strangers: Floats) -> Floats:
    """(p,) Probability that each join is right given its gap: EM for a mixture with the strangers' distribution."""
    low, high, share = soft_bins(gap / scale)
    wrong_likelihood = (1 - probability) * interpolate(strangers, kind, *soft_bins(gap))
    right = probability
    for _ in range(_EM_ITERATIONS):
        same = _same(_counts(kind, KINDS, gap, scale, right), strangers)
        likelihood = probability * interpolate(same, kind, low, high, share)
        right = likelihood / np.maximum(likelihood + wrong_likelihood, 1e-300)
    return right


def _routes(
    children: Sequence[str], left: Ints, right: Ints, relative: Bools, gap: Floats, scale: Floats, weight: Floats
) -> tuple[Route, ...]:
    """The routes with at least _MIN_ROUTE_JOINS joins."""
    numbers, route = np.unique(route_numbers(left, right, relative, len(children)), return_inverse=True)
    route = route.reshape(-1)
    kept = np.flatnonzero(_exact_sum(route, weight, len(numbers)) >= _MIN_ROUTE_JOINS)
    kept_index = np.full(len(numbers), -1)
    kept_index[kept] = np.arange(len(kept))
    rows = kept_index[route] >= 0
    counts = _counts(kept_index[route[rows]], len(kept), gap[rows], scale[rows], weight[rows])
    found = []
    for row, number in enumerate(numbers[kept].tolist()):
        ends = sorted(children[i] for i in divmod(number // 2, len(children)))
        bins = np.flatnonzero(np.round(counts[row], 3))
        joins = dict(zip(bins.tolist(), np.round(counts[row, bins], 3).tolist(), strict=True))
        found.append(Route(left=ends[0], right=ends[1], relative=bool(number % 2), joins=joins))
    return tuple(sorted(found, key=lambda route: (route.left, route.right, route.relative)))


def _counts(row: Ints, rows: int, gap: Floats, scale: Floats, weight: Floats) -> Floats:
    """(rows, BINS) Weighted number of gaps / scale in each soft bin, each gap spread by the clocks' uncertainty."""
    total = np.zeros(rows * BINS)
    for shift, part in ((-_CLOCK_S, 0.25), (0.0, 0.5), (_CLOCK_S, 0.25)):
        low, high, share = soft_bins((gap + shift) / scale)
        for bins, bin_share in ((low, 1 - share), (high, share)):
            total += _exact_sum(row * BINS + bins, part * weight * bin_share, rows * BINS)
    return total.reshape(rows, BINS)


def _exact_sum(index: Ints, values: Floats, length: int) -> Floats:
    """(length,) Sums of the values (p,) by index; the same in every order."""
    return np.asarray(np.bincount(index, np.round(values / _COUNT_UNIT), minlength=length) * _COUNT_UNIT, np.float64)


def _rounded_rows(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.round(table, 9).tolist())
