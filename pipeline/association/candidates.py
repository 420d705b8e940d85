"""Who is compared with whom: the nearest k by cosine among those that are possible."""

import numpy as np

from pipeline.association.geometry import Closest, Geometry, closest
from pipeline.association.nodes import Nodes, unit_rows
from schemas.arrays import Bools, Floats, Ints

#: Rows of the cosine matrix at a time: bounds memory at n * _ROWS float64.
_ROWS = 512


def shortlist(nodes: Nodes, world: Geometry, k: int) -> tuple[Ints, Ints, Closest]:
    """Pairs (left < right) of each fresh node with its k nearest possible others, ascending, and their times.

    What was seen longer apart than the horizon is not compared, however long a window is: a day in one window then
    gives what its windows of five minutes give.

    Exact, in float64, rounded to 12 digits so that ties fall to the key on every machine.
    """
    directions = unit_rows(nodes.mean)
    fresh = np.flatnonzero(nodes.fresh)
    wanted = min(4 * k, len(nodes) - 1)  # more than k, since gates drop some
    found: list[np.ndarray] = []
    times: list[Closest] = []
    for start in range(0, len(fresh) if wanted > 0 else 0, _ROWS):
        rows = fresh[start : start + _ROWS]
        distance = np.round(1 - directions[rows] @ directions.T, 12)  # (r, n)
        distance[np.arange(len(rows)), rows] = np.inf
        if world.horizon_us < nodes.spans.whole_us:
            distance[_out_of_reach(nodes, world, rows)] = np.inf
        near = _nearest(distance, wanted)
        left, right = np.repeat(rows, wanted), near.ravel()
        its = closest(nodes, world, np.minimum(left, right), np.maximum(left, right))
        possible = ~(its.impossible | (its.gap_us > world.horizon_us)).reshape(near.shape)
        possible &= np.isfinite(np.take_along_axis(distance, near, axis=1))
        keep = np.flatnonzero(possible & (np.cumsum(possible, axis=1) <= k))
        found.append(np.minimum(left, right)[keep] * len(nodes) + np.maximum(left, right)[keep])
        times.append(its.take(keep))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), closest(nodes, world, *np.empty((2, 0), np.int64))
    pairs, first = np.unique(np.concatenate(found), return_index=True)
    left, right = np.divmod(pairs, len(nodes))
    return left, right, Closest.joined(times).take(first)


def _out_of_reach(nodes: Nodes, world: Geometry, rows: Ints) -> Bools:
    """(r, n) Whether everything seen of the one and of the other lies further apart than the horizon."""
    spans = nodes.spans
    begin = np.minimum.reduceat(spans.start_us, spans.first[:-1])
    end = np.maximum.reduceat(spans.end_us, spans.first[:-1])
    gap = np.maximum(begin[rows, None] - end[None], begin[None] - end[rows, None])
    result: Bools = (gap > world.horizon_us) & nodes.timed[rows, None] & nodes.timed[None]
    return result


def _nearest(distance: Floats, k: int) -> Ints:
    """(r, k) Columns of the k smallest of each row, ascending; ties fall to the lower column."""
    furthest = np.partition(distance, k - 1, axis=1)[:, k - 1]
    near = np.empty((len(distance), k), dtype=np.int64)
    for row, (values, most) in enumerate(zip(distance, furthest, strict=True)):
        candidates = np.flatnonzero(values <= most)  # more than k where several are as far as the k-th
        near[row] = candidates[np.argsort(values[candidates], kind="stable")[:k]]
    return near
