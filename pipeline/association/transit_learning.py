"""Learning a level's transit model from joins and from compared strangers.

A few joins are of two people. Where the caller knows how sure each is, that is taken. Otherwise as much of strangers'
distribution is taken out of the joins as they can hold (the largest share such that no bin falls below zero: mixture
proportion estimation, Blanchard et al. 2010), and no more than a stated share, since some people do stay for hours.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.association.transit import (
    BINS,
    KINDS,
    PSEUDO_COUNT,
    UNKNOWN,
    between,
    floored,
    kinds,
    route_keys,
    soft_bins,
    strangers_prior,
    walking_prior,
)
from schemas.arrays import Floats, Ints
from schemas.calibration import Route, TransitTimes

#: At most this share of the joins is taken to be wrong, unless the caller says how sure each is.
MOST_WRONG = 0.3
#: Each gap is spread by this to either side, as wrong clocks would, seconds.
CLOCK_S = 1.0
#: A route with fewer joins than this is left to its kind.
_FEWEST = 3.0
#: Bins with at least this share of strangers show how many of the joins are wrong.
_TELLING = 0.05
_ITERATIONS = 30
#: Counts are whole multiples of this, so that their sums do not depend on the order of the pairs.
_GRAIN = 2.0**-20


def learn(
    looked_s: float,
    children: Sequence[str],
    left_child: Ints,
    right_child: Ints,
    way_s: Floats,
    gap_s: Floats,
    is_same: NDArray[np.bool_],
    *,
    probability: Floats | None = None,
    weight: Floats | None = None,
    most_wrong: float = MOST_WRONG,
    clock_s: float = CLOCK_S,
) -> TransitTimes:
    """A level's model from p pairs that the level compared, in any order. All arrays (p,).

    children: codes of the children of all units of the level; left_child and right_child are places in it.
    way_s, gap_s: as for `UnitTransit.log_odds`. is_same: a join; else the two are not one person.
    probability: that a join is right, judged without its time, else the model confirms itself. Without it the share of
    wrong joins is told from their times, up to most_wrong; 0 for labeled pairs.
    weight: how many pairs each stands for. clock_s: each gap is spread by this to either side.
    """
    assert len(left_child) == len(right_child) == len(way_s) == len(gap_s) == len(is_same), "columns of one length"
    assert np.isfinite(gap_s).all(), "each pair needs a gap"
    kind = kinds(left_child, right_child, way_s)
    many = np.ones(len(gap_s)) if weight is None else weight
    apart = ~is_same
    strangers, met = _strangers(kind[apart], gap_s[apart], many[apart], looked_s, clock_s)

    kind, gap, many = kind[is_same], gap_s[is_same], many[is_same]
    relative = kind < UNKNOWN
    scale = np.where(relative, floored(way_s[is_same]), 1.0)
    if probability is None:
        sure = np.full(len(gap), 1 - min(most_wrong, _wrong_share(kind, gap, many, strangers, clock_s)))
    else:
        sure = probability[is_same]
    right = _without_wrong(kind, gap, scale, many, sure, strangers, clock_s)
    joined = many * right
    same = _same(_counts(kind, KINDS, gap, scale, joined, clock_s), strangers)
    of_kind = _exact_sum(kind, joined, KINDS)
    return TransitTimes(
        looked_s=looked_s,
        same=_rows(same),
        strangers=_rows(strangers),
        ways=tuple(np.round(_ways(of_kind, met), 9).tolist()),
        routes=_routes(children, left_child[is_same], right_child[is_same], relative, gap, scale, joined, clock_s),
        joins=round(float(of_kind.sum()), 3),
        compared=round(float(met.sum()), 3),
        wrong_share=round(float(1 - of_kind.sum() / many.sum()) if many.sum() else 0.0, 6),
    )


def _strangers(kind: Ints, gap: Floats, many: Floats, looked_s: float, clock_s: float) -> tuple[Floats, Floats]:
    """(KINDS, BINS) shares of strangers' gaps in seconds, and (KINDS,) how many pairs they are of."""
    counts = _counts(kind, KINDS, gap, np.ones(len(gap)), many, clock_s)
    anywhere = _towards(counts.sum(axis=0), strangers_prior(looked_s))
    return _towards(counts, anywhere), counts.sum(axis=1)


def _same(counts: Floats, strangers: Floats) -> Floats:
    """(KINDS, BINS) shares of one person's gaps, each kind leaning on all known ways and those on walking speed."""
    anywhere = _towards(counts[:UNKNOWN].sum(axis=0), walking_prior())
    return np.concatenate([_towards(counts[:UNKNOWN], anywhere), _towards(counts[UNKNOWN:], strangers[UNKNOWN:])])


def _towards(counts: Floats, start: Floats) -> Floats:
    """(..., BINS) Shares, leaning towards `start` while there are few counts (Dirichlet)."""
    shares: Floats = (counts + PSEUDO_COUNT * start) / (counts.sum(axis=-1, keepdims=True) + PSEUDO_COUNT)
    return shares


def _ways(joined: Floats, met: Floats) -> Floats:
    """(KINDS,) log of each kind's share among one person's ways / among strangers'; 0 where neither has been seen.

    Seen against expected counts, with a gamma prior around 1 (DuMouchel 1999), so that a rare kind says little.
    """
    expected = joined.sum() * met / max(met.sum(), 1.0)
    return np.asarray(np.log((joined + PSEUDO_COUNT / 4) / (expected + PSEUDO_COUNT / 4))) * bool(met.sum())


def _wrong_share(kind: Ints, gap: Floats, many: Floats, strangers: Floats, clock_s: float) -> float:
    """The largest share of strangers that the joins' gaps, in seconds, can hold."""
    held = _counts(kind, KINDS, gap, np.ones(len(gap)), many, clock_s)
    if not held.sum():
        return 0.0
    expected = (held.sum(axis=1, keepdims=True) * strangers).sum(axis=0)
    telling = expected >= _TELLING * expected.sum()
    return float(np.min(held.sum(axis=0)[telling] / expected[telling], initial=1.0))


def _without_wrong(
    kind: Ints, gap: Floats, scale: Floats, many: Floats, sure: Floats, strangers: Floats, clock_s: float
) -> Floats:
    """(p,) Probability that each join is right, its time included: EM for a mixture with strangers of known share."""
    if (sure == 1).all():
        return sure
    low, high, share = soft_bins(gap / scale)
    wrong = (1 - sure) * between(strangers, kind, *soft_bins(gap))
    right = sure
    for _ in range(_ITERATIONS):
        same = _same(_counts(kind, KINDS, gap, scale, many * right, clock_s), strangers)
        likely = sure * between(same, kind, low, high, share)
        right = likely / np.maximum(likely + wrong, 1e-300)
    return right


def _routes(
    children: Sequence[str],
    left: Ints,
    right: Ints,
    relative: NDArray[np.bool_],
    gap: Floats,
    scale: Floats,
    joined: Floats,
    clock_s: float,
) -> tuple[Route, ...]:
    keys, route = np.unique(route_keys(left, right, relative, len(children)), return_inverse=True)
    route = route.reshape(-1)
    total = _exact_sum(route, joined, len(keys))
    enough = np.flatnonzero(total >= _FEWEST)
    place = np.full(len(keys), -1)
    place[enough] = np.arange(len(enough))
    rows = place[route] >= 0
    counts = _counts(place[route[rows]], len(enough), gap[rows], scale[rows], joined[rows], clock_s)
    found = []
    for row, key in enumerate(keys[enough].tolist()):
        ends = sorted(children[i] for i in divmod(key // 2, len(children)))
        bins = np.flatnonzero(np.round(counts[row], 3))
        joins = dict(zip(bins.tolist(), np.round(counts[row, bins], 3).tolist(), strict=True))
        found.append(Route(left=ends[0], right=ends[1], relative=bool(key % 2), joins=joins))
    return tuple(sorted(found, key=lambda r: (r.left, r.right, r.relative)))


def _counts(row: Ints, rows: int, gap: Floats, scale: Floats, many: Floats, clock_s: float) -> Floats:
    """(rows, BINS) How many gaps / scale fall into each soft bin, spread by the clocks' uncertainty."""
    total = np.zeros(rows * BINS)
    for shift, part in ((-clock_s, 0.25), (0.0, 0.5), (clock_s, 0.25)):
        low, high, share = soft_bins((gap + shift) / scale)
        for bins, of in ((low, 1 - share), (high, share)):
            total += _exact_sum(row * BINS + bins, part * many * of, rows * BINS)
    return total.reshape(rows, BINS)


def _exact_sum(place: Ints, values: Floats, length: int) -> Floats:
    """(length,) Sums of `values` by place, the same in every order."""
    return np.asarray(np.bincount(place, np.round(values / _GRAIN), minlength=length) * _GRAIN, np.float64)


def _rows(table: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.round(table, 9).tolist())
