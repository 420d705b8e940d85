"""Transit times: how much the way and the time between two sightings speak for one person.

A model of a level is a snapshot, learned in a step of its own from joins that are confirmed or sure, and the same for
every window: resolved again, or in another order, the same pairs get the same log-odds.

Notable: one person's gap is counted relative to the time that the way takes, so that a new camera or route starts from
its distance. Strangers' gaps know nothing of the way, so theirs are counted in seconds. Both are densities over the
logarithm of the gap, whose ratio does not depend on the unit. Bins are soft (a gap is shared by the two nearest nodes),
so that a clock that is a little wrong changes little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from schemas.arrays import Floats, Ints
from schemas.calibration import TransitTimes

#: No way is taken for shorter than this: people are seen meters from where a camera stands, and stand about there.
SHORTEST_S = 5.0
#: Log-odds are cut here, either way: clocks, positions and routes may all be wrong.
MOST = 4.0
#: This share of one person's gaps is taken to be like strangers', so that no route and no gap is impossible.
FLOOR = 0.02
#: A bin that holds less than this of both says nothing.
_TINY = 1e-4

#: Bin 0 is an overlap in time; the others are nodes half an octave apart, 2^-6 .. 2^22 (in seconds: 48 days).
_FIRST_OCTAVE, _LAST_OCTAVE, _PER_OCTAVE = -6, 22, 2
_NODES = (_LAST_OCTAVE - _FIRST_OCTAVE) * _PER_OCTAVE + 1
BINS = _NODES + 1
#: Kinds of way: five by the expected time with these limits, seconds; then unknown ways; then back to the same child.
#: The last two have no time to be relative to: their gaps are counted in seconds.
WAYS_S = (15.0, 60.0, 240.0, 960.0)
UNKNOWN, SAME_CHILD = len(WAYS_S) + 1, len(WAYS_S) + 2
KINDS = SAME_CHILD + 1

#: Before anything is learned: people walk (Weidmann 1993: at 1.34 +- 0.26 m/s) ways somewhat longer than a straight
#: line, and some stop on the way (medians and spreads of gap / expected time, as logarithms); few are seen by both
#: cameras at once.
_WALKED, _STOPPED, _STOPPING = (np.log(1.2), 0.5), (np.log(5.0), 1.2), 0.3
_OVERLAPPING = 0.05
#: Two strangers' passages of some seconds each overlap by chance.
_PASSAGE_S = 10.0
#: Pairs looked at in one go; what they need fits the processor's cache.
_BLOCK = 16_384
#: How many joins it takes to outweigh the route's kind.
PSEUDO_COUNT = 20.0


@dataclass(frozen=True)
class UnitTransit:
    """A model made ready for one unit's children."""

    children: int
    looked_s: float
    same: Floats  # (KINDS, BINS)
    strangers: Floats  # (KINDS, BINS)
    ways: Floats  # (KINDS,)
    keys: Ints  # (r,) of the routes with joins of their own, ascending; see route_keys
    counts: Floats  # (r + 1, BINS) their joins, from row 1; row 0 is the route without any

    def log_odds(self, left_child: Ints, right_child: Ints, way_s: Floats, gap_s: Floats) -> Floats:
        """(p,) log p(way, gap | one person) / p(way, gap | strangers), within +-MOST.

        left_child, right_child: (p,) places in the children the model was bound to; which is which does not matter.
        way_s: (p,) how long the way takes at a usual pace (`Geometry.way_s`), NaN where nothing is known of it.
        gap_s: (p,) between the two sightings nearest in time, below 0 where they overlap.
        """
        blocks = [slice(i, i + _BLOCK) for i in range(0, len(gap_s), _BLOCK)]
        parts = [self._log_odds(left_child[b], right_child[b], way_s[b], gap_s[b]) for b in blocks]
        return np.concatenate(parts) if parts else np.empty(0)

    def _log_odds(self, left_child: Ints, right_child: Ints, way_s: Floats, gap_s: Floats) -> Floats:
        kind, way_s = kinds(left_child, right_child, way_s), floored(way_s)
        relative = kind < UNKNOWN
        key = route_keys(left_child, right_child, relative, self.children)
        row = np.zeros(len(key), np.int64)
        if len(self.keys):
            place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
            row = np.where(self.keys[place] == key, place + 1, 0)
        # The bins that the end of the horizon cuts through are not full: longer gaps say what those before them say.
        gap = np.minimum(gap_s, self.looked_s / np.sqrt(2))
        low, high, share = soft_bins(gap / np.where(relative, way_s, 1.0))
        joins = between(self.counts, row, low, high, share)
        same = joins + PSEUDO_COUNT * between(self.same, kind, low, high, share)
        same /= self.counts.sum(axis=1)[row] + PSEUDO_COUNT
        strangers = between(self.strangers, kind, *soft_bins(gap))
        ratio = np.log(((1 - FLOOR) * same + FLOOR * strangers + _TINY) / (strangers + _TINY))
        return np.asarray(np.clip(ratio + self.ways[kind], -MOST, MOST), np.float64)


def floored(way_s: Floats) -> Floats:
    """(p,) Expected times, none below SHORTEST_S; NaN stays NaN."""
    longer: Floats = np.maximum(way_s, SHORTEST_S)
    return longer


def bind(times: TransitTimes, children: Sequence[str]) -> UnitTransit:
    """For a unit with these children, by their place in `children`."""
    index = {code: i for i, code in enumerate(children)}
    held = [r for r in times.routes if r.left in index and r.right in index]
    counts = np.zeros((len(held) + 1, BINS))
    for row, route in enumerate(held, 1):
        counts[row, list(route.joins.keys())] = list(route.joins.values())
    ends = np.array([(index[r.left], index[r.right]) for r in held], np.int64).reshape(-1, 2)
    keys = route_keys(ends[:, 0], ends[:, 1], np.array([r.relative for r in held], bool), len(children))
    order = np.argsort(keys)
    return UnitTransit(
        len(children),
        times.looked_s,
        np.array(times.same),
        np.array(times.strangers),
        np.array(times.ways),
        keys[order],
        counts[np.concatenate([[0], order + 1])],
    )


def kinds(left_child: Ints, right_child: Ints, way_s: Floats) -> Ints:
    """(p,) Kind of each way, 0 .. KINDS - 1."""
    by_time = np.where(np.isnan(way_s), UNKNOWN, np.searchsorted(WAYS_S, way_s, side="right"))
    return np.where(left_child == right_child, SAME_CHILD, by_time).astype(np.int64)


def route_keys(left: Ints, right: Ints, relative: np.ndarray, children: int) -> Ints:
    """(p,) One number for each route of a unit with so many children, whichever end comes first."""
    key: Ints = (np.minimum(left, right) * children + np.maximum(left, right)) * 2 + relative
    return key


def soft_bins(gap: Floats) -> tuple[Ints, Ints, Floats]:
    """The two bins that share each gap, and the share of the second. All (p,)."""
    overlap = gap <= 0
    octave = np.log2(np.where(overlap, 1.0, gap))
    node = np.clip((octave - _FIRST_OCTAVE) * _PER_OCTAVE, 0, _NODES - 1)
    low = np.minimum(node.astype(np.int64), _NODES - 2)
    return (
        np.where(overlap, 0, low + 1),
        np.where(overlap, 0, low + 2),
        np.where(overlap, 0.0, node - low),
    )


def between(table: Floats, row: Ints, low: Ints, high: Ints, share: Floats) -> Floats:
    """(p,) Entries of table (r, BINS) at soft bins."""
    values: Floats = table[row, low] * (1 - share) + table[row, high] * share
    return values


def prior(looked_s: float) -> TransitTimes:
    """What is believed before anything is learned: walking speed against gaps spread evenly over `looked_s`.

    looked_s: how long the unit has looked, at most its horizon, seconds. Says nothing of unknown ways and of returns to
    the same child.
    """
    strangers = strangers_prior(looked_s)
    walked = walking_prior()
    same = [*repeat(walked, UNKNOWN), strangers, strangers]
    return TransitTimes(
        looked_s=looked_s,
        same=tuple(tuple(row.tolist()) for row in same),
        strangers=(tuple(strangers.tolist()),) * KINDS,
        ways=(0.0,) * KINDS,
    )


def walking_prior() -> Floats:
    """(BINS,) Shares of one person's gaps relative to the expected time."""
    node = np.log(2.0) * (_FIRST_OCTAVE + np.arange(_NODES) / _PER_OCTAVE)
    bells = [np.exp(-(((node - center) / width) ** 2) / 2) for center, width in (_WALKED, _STOPPED)]
    walked, stopped = (bell / bell.sum() for bell in bells)
    mixed = (1 - _STOPPING) * walked + _STOPPING * stopped
    return np.round(np.concatenate([[_OVERLAPPING], (1 - _OVERLAPPING) * mixed]), 9)


def strangers_prior(looked_s: float) -> Floats:
    """(BINS,) Shares of strangers' gaps in seconds, spread evenly over `looked_s`."""
    edges = 2.0 ** (_FIRST_OCTAVE + (np.arange(_NODES + 1) - 0.5) / _PER_OCTAVE)
    edges[0] = 0.0
    even = np.diff(np.minimum(edges, looked_s)) / (min(looked_s, edges[-1]) + _PASSAGE_S)
    return np.round(np.concatenate([[1 - even.sum()], even]), 9)
