"""Transit times: what the route and the time between two sightings say about being one person.

A route is a pair of a unit's children. Routes are grouped into kinds by their expected walking time. The log-odds of a
gap are the log ratio of two densities over the logarithm of the gap: one person's, and strangers'. One person's gaps
are counted relative to the expected time, so that a new camera or route starts from its distance; strangers' gaps do
not depend on the route and are counted in seconds. The ratio does not depend on the unit of time. Bins are soft (a gap
is shared by its two nearest nodes), so that a small clock error changes little.

A level's model (`TransitTimes`) is a snapshot, learned in a separate step from confirmed or sure joins. It is the same
for every window, so that the same pairs get the same log-odds whenever and in whatever order they are resolved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np

from schemas.arrays import Floats, Ints
from schemas.calibration import TransitTimes

#: Lower limit of expected times, seconds: people are seen meters away from a camera's position, and pause there.
MIN_EXPECTED_S = 5.0
#: Log-odds are clipped to +-CLIP, since clocks, positions and routes may all be wrong.
CLIP = 4.0
#: Share of one person's gaps that is assumed to be distributed like strangers', so that no gap is impossible.
OUTLIER_SHARE = 0.02
#: Added to both densities, so that nearly empty bins say nothing.
_SMOOTHING = 1e-4
#: Strangers' gaps are assumed to reach back a day at most where nothing is learned yet, seconds.
_MAX_LOOKBACK_S = 86_400.0

#: Bin 0 holds overlaps in time. The others are nodes half an octave apart, 2^-6 .. 2^22 (in seconds: 48 days).
_FIRST_OCTAVE, _LAST_OCTAVE, _PER_OCTAVE = -6, 22, 2
_NODES = (_LAST_OCTAVE - _FIRST_OCTAVE) * _PER_OCTAVE + 1
BINS = _NODES + 1
#: Kinds of route: five by expected time, with these limits in seconds; then routes of unknown time; then returns to the
#: same child. The last two have no time to be relative to: their gaps are counted in seconds.
KIND_LIMITS_S = (15.0, 60.0, 240.0, 960.0)
UNKNOWN, SAME_CHILD = len(KIND_LIMITS_S) + 1, len(KIND_LIMITS_S) + 2
KINDS = SAME_CHILD + 1

#: Prior of gap / expected time, as (median, standard deviation) of its logarithm: people walk routes somewhat longer
#: than a straight line (Weidmann 1993: at 1.34 +- 0.26 m/s), and a share of them stops on the way.
_WALKING, _STOPPING = (np.log(1.2), 0.5), (np.log(5.0), 1.2)
_STOPPING_SHARE = 0.3
#: Prior share of one person's gaps that overlap in time: few people are seen by two cameras at once.
_OVERLAP_SHARE = 0.05
#: Strangers' passages overlap by chance, as passages of this length would, seconds.
_PASSAGE_S = 10.0
#: Pairs processed at a time; fits the processor's cache.
_BLOCK = 16_384
#: Number of joins at which a route's own gaps weigh as much as those of its kind.
PSEUDO_COUNT = 20.0


@dataclass(frozen=True)
class UnitTransit:
    """A level's transit times, with its routes indexed by one unit's children."""

    child_count: int
    lookback_s: float
    same: Floats  # (KINDS, BINS)
    strangers: Floats  # (KINDS, BINS)
    kind_log_ratios: Floats  # (KINDS,)
    routes: Ints  # (r,) numbers of the routes with joins of their own, ascending; see `route_numbers`
    route_joins: Floats  # (r + 1, BINS) their joins, from row 1; row 0 is zero, for routes without any

    def log_odds(self, left_child: Ints, right_child: Ints, expected_s: Floats, gap_s: Floats) -> Floats:
        """(p,) log p(route, gap | one person) / p(route, gap | strangers), within +-CLIP.

        left_child, right_child: (p,) indices into the unit's children; the order of the two does not matter.
        expected_s: (p,) expected walking time (`Geometry.expected_s`), NaN where unknown.
        gap_s: (p,) between the two tracklets nearest in time, negative where they overlap.
        """
        blocks = [slice(i, i + _BLOCK) for i in range(0, len(gap_s), _BLOCK)]
        parts = [self._log_odds(left_child[b], right_child[b], expected_s[b], gap_s[b]) for b in blocks]
        return np.concatenate(parts) if parts else np.empty(0)

    def _log_odds(self, left_child: Ints, right_child: Ints, expected_s: Floats, gap_s: Floats) -> Floats:
        kind = route_kinds(left_child, right_child, expected_s)
        relative = kind < UNKNOWN
        number = route_numbers(left_child, right_child, relative, self.child_count)
        row = np.zeros(len(number), np.int64)
        if len(self.routes):
            index = np.minimum(np.searchsorted(self.routes, number), len(self.routes) - 1)
            row = np.where(self.routes[index] == number, index + 1, 0)
        # The last bins below the lookback are only partly filled: longer gaps are treated like those before them.
        gap = np.minimum(gap_s, self.lookback_s / np.sqrt(2))
        low, high, share = soft_bins(gap / np.where(relative, np.maximum(expected_s, MIN_EXPECTED_S), 1.0))
        joins = interpolate(self.route_joins, row, low, high, share)
        same = joins + PSEUDO_COUNT * interpolate(self.same, kind, low, high, share)
        same /= self._route_totals[row] + PSEUDO_COUNT
        strangers = interpolate(self.strangers, kind, *soft_bins(gap))
        same = (1 - OUTLIER_SHARE) * same + OUTLIER_SHARE * strangers
        ratio = np.log((same + _SMOOTHING) / (strangers + _SMOOTHING))
        return np.asarray(np.clip(ratio + self.kind_log_ratios[kind], -CLIP, CLIP), np.float64)

    @cached_property
    def _route_totals(self) -> Floats:
        """(r + 1,)"""
        return np.asarray(self.route_joins.sum(axis=1), np.float64)


def unit_transit(times: TransitTimes, children: Sequence[str]) -> UnitTransit:
    """The times for a unit with these children."""
    index = {code: i for i, code in enumerate(children)}
    known = [route for route in times.routes if route.left in index and route.right in index]
    joins = np.zeros((len(known) + 1, BINS))
    for row, route in enumerate(known, 1):
        joins[row, list(route.joins.keys())] = list(route.joins.values())
    ends = np.array([(index[route.left], index[route.right]) for route in known], np.int64).reshape(-1, 2)
    relative = np.array([route.relative for route in known], bool)
    numbers = route_numbers(ends[:, 0], ends[:, 1], relative, len(children))
    order = np.argsort(numbers)
    return UnitTransit(
        child_count=len(children),
        lookback_s=times.lookback_s,
        same=np.array(times.same),
        strangers=np.array(times.strangers),
        kind_log_ratios=np.array(times.kind_log_ratios),
        routes=numbers[order],
        route_joins=joins[np.concatenate([[0], order + 1])],
    )


def route_kinds(left_child: Ints, right_child: Ints, expected_s: Floats) -> Ints:
    """(p,) Kind of each route, 0 .. KINDS - 1."""
    by_time = np.where(np.isnan(expected_s), UNKNOWN, np.searchsorted(KIND_LIMITS_S, expected_s, side="right"))
    return np.where(left_child == right_child, SAME_CHILD, by_time).astype(np.int64)


def route_numbers(left: Ints, right: Ints, relative: np.ndarray, child_count: int) -> Ints:
    """(p,) One number for each (route, relative) of a unit; the order of the ends does not matter."""
    numbers: Ints = (np.minimum(left, right) * child_count + np.maximum(left, right)) * 2 + relative
    return numbers


def soft_bins(gap: Floats) -> tuple[Ints, Ints, Floats]:
    """The two bins that share each gap, and the share of the second one. All (p,)."""
    overlap = gap <= 0
    octave = np.log2(np.where(overlap, 1.0, gap))
    node = np.clip((octave - _FIRST_OCTAVE) * _PER_OCTAVE, 0, _NODES - 1)
    low = np.minimum(node.astype(np.int64), _NODES - 2)
    return (
        np.where(overlap, 0, low + 1),
        np.where(overlap, 0, low + 2),
        np.where(overlap, 0.0, node - low),
    )


def interpolate(table: Floats, row: Ints, low: Ints, high: Ints, share: Floats) -> Floats:
    """(p,) Entries of the table (r, BINS) at these rows and soft bins."""
    values: Floats = table[row, low] * (1 - share) + table[row, high] * share
    return values


def max_lookback_s(horizon_s: float) -> float:
    """How far back strangers' gaps are assumed to reach in a unit with this horizon, seconds."""
    return float(min(horizon_s, _MAX_LOOKBACK_S))


def prior_times(lookback_s: float) -> TransitTimes:
    """The transit times before anything is learned: walking speed against gaps spread evenly over `lookback_s`.

    Neutral (log-odds 0) for routes of unknown time and for returns to the same child.
    """
    strangers = strangers_prior(lookback_s)
    same = [*repeat(walking_prior(), UNKNOWN), strangers, strangers]
    return TransitTimes(
        lookback_s=lookback_s,
        same=tuple(tuple(row.tolist()) for row in same),
        strangers=(tuple(strangers.tolist()),) * KINDS,
        kind_log_ratios=(0.0,) * KINDS,
    )


def walking_prior() -> Floats:
    """(BINS,) Prior shares of one person's gaps relative to the expected time."""
    node = np.log(2.0) * (_FIRST_OCTAVE + np.arange(_NODES) / _PER_OCTAVE)
    bells = [np.exp(-(((node - center) / width) ** 2) / 2) for center, width in (_WALKING, _STOPPING)]
    walking, stopping = (bell / bell.sum() for bell in bells)
    mixed = (1 - _STOPPING_SHARE) * walking + _STOPPING_SHARE * stopping
    return np.round(np.concatenate([[_OVERLAP_SHARE], (1 - _OVERLAP_SHARE) * mixed]), 9)


def strangers_prior(lookback_s: float) -> Floats:
    """(BINS,) Prior shares of strangers' gaps in seconds, spread evenly over `lookback_s`."""
    edges = 2.0 ** (_FIRST_OCTAVE + (np.arange(_NODES + 1) - 0.5) / _PER_OCTAVE)
    edges[0] = 0.0
    even = np.diff(np.minimum(edges, lookback_s)) / (min(lookback_s, edges[-1]) + _PASSAGE_S)
    return np.round(np.concatenate([[1 - even.sum()], even]), 9)
