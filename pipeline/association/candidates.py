"""Candidates (blocking): each fresh node's nearest k others by cosine distance, among those that are possible."""

import numpy as np

from pipeline.association.geometry import Geometry, TimeGaps, time_gaps
from pipeline.association.nodes import Nodes, unit_rows
from schemas.arrays import Bools, Floats, Ints

#: Rows of the distance matrix at a time; bounds memory to _ROWS * n float64.
_ROWS = 512
#: Up to so many columns sorting a row whole takes less time than finding its smallest first.
_FEW = 512


def shortlist(nodes: Nodes, geometry: Geometry, k: int) -> tuple[Ints, Ints, TimeGaps]:
    """Pairs (left (p,), right (p,)) with left < right, ascending, and their time gaps.

    A pair is listed when one node is fresh and the other is among its k nearest possible nodes. Gates and horizon are
    checked on the nearest 4 k only. Pairs with a gap longer than the horizon are not compared, even within one window,
    so that one window of a day gives what windows of five minutes give.

    Exact, in float64, with distances rounded to 12 digits so that ties break by key on every machine.
    """
    directions = unit_rows(nodes.mean)
    fresh = np.flatnonzero(nodes.fresh)
    checked = min(4 * k, len(nodes) - 1)
    pair_numbers: list[np.ndarray] = []
    gaps: list[TimeGaps] = []
    for start in range(0, len(fresh) if checked > 0 else 0, _ROWS):
        rows = fresh[start : start + _ROWS]
        distance = np.round(1 - directions[rows] @ directions.T, 12)  # (r, n)
        distance[np.arange(len(rows)), rows] = np.inf
        if geometry.horizon_us < nodes.spans.duration_us:
            distance[_beyond_horizon(nodes, geometry, rows)] = np.inf
        near = _nearest(distance, checked)  # (r, checked)
        left = np.minimum(rows[:, None], near).ravel()
        right = np.maximum(rows[:, None], near).ravel()
        block_gaps = time_gaps(nodes, geometry, left, right)
        possible = ~(block_gaps.impossible | (block_gaps.gap_us > geometry.horizon_us)).reshape(near.shape)
        possible &= np.isfinite(np.take_along_axis(distance, near, axis=1))
        kept = np.flatnonzero(possible & (np.cumsum(possible, axis=1) <= k))
        pair_numbers.append(left[kept] * len(nodes) + right[kept])
        gaps.append(block_gaps.take(kept))
    if not pair_numbers:
        return np.empty(0, np.int64), np.empty(0, np.int64), time_gaps(nodes, geometry, *np.empty((2, 0), np.int64))
    pairs, first = np.unique(np.concatenate(pair_numbers), return_index=True)
    left, right = np.divmod(pairs, len(nodes))
    return left, right, TimeGaps.concatenated(gaps).take(first)


def _beyond_horizon(nodes: Nodes, geometry: Geometry, rows: Ints) -> Bools:
    """(r, n) Whether the whole time spans of the two nodes are further apart than the horizon."""
    spans = nodes.spans
    start = np.minimum.reduceat(spans.start_us, spans.first[:-1])
    end = np.maximum.reduceat(spans.end_us, spans.first[:-1])
    gap = np.maximum(start[rows, None] - end[None], start[None] - end[rows, None])
    result: Bools = (gap > geometry.horizon_us) & nodes.timed[rows, None] & nodes.timed[None]
    return result


def _nearest(distance: Floats, k: int) -> Ints:
    """(r, k) Columns of each row's k smallest distances, ascending; ties break by column."""
    if distance.shape[1] <= _FEW:
        sorted_: Ints = np.argsort(distance, axis=1, kind="stable")[:, :k]
        return sorted_
    kth = np.partition(distance, k - 1, axis=1)[:, k - 1]
    near = np.empty((len(distance), k), dtype=np.int64)
    for row, (values, largest) in enumerate(zip(distance, kth, strict=True)):
        candidates = np.flatnonzero(values <= largest)  # more than k where several equal the k-th
        near[row] = candidates[np.argsort(values[candidates], kind="stable")[:k]]
    return near
