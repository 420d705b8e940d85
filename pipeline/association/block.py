"""Who is compared with whom: the nearest k by cosine among those that are possible."""

import numpy as np

from pipeline.association.geometry import Geometry, closest
from pipeline.association.nodes import Floats, Ints, Nodes, unit_rows

#: Rows of the cosine matrix at a time: bounds memory at n * _ROWS float64.
_ROWS = 512


def shortlist(nodes: Nodes, world: Geometry, k: int) -> tuple[Ints, Ints]:
    """Pairs (left < right) of each fresh node with its k nearest possible others, ascending.

    Exact, in float64, rounded to 12 digits so that ties fall to the key on every machine.
    """
    directions = unit_rows(nodes.mean)
    fresh = np.flatnonzero(nodes.fresh)
    wanted = min(4 * k, len(nodes) - 1)  # more than k, since gates drop some
    found: list[np.ndarray] = []
    for start in range(0, len(fresh) if wanted > 0 else 0, _ROWS):
        rows = fresh[start : start + _ROWS]
        distance = np.round(1 - directions[rows] @ directions.T, 12)  # (r, n)
        distance[np.arange(len(rows)), rows] = np.inf
        near = _nearest(distance, wanted)
        left, right = np.repeat(rows, wanted), near.ravel()
        possible = ~closest(nodes, world, left, right).impossible.reshape(near.shape)
        keep = possible & (np.cumsum(possible, axis=1) <= k)
        found.append(np.stack([np.repeat(rows, wanted)[keep.ravel()], right[keep.ravel()]], axis=1))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _nearest(distance: Floats, k: int) -> Ints:
    """(r, k) Columns of the k smallest of each row, ascending; ties fall to the lower column."""
    furthest = np.partition(distance, k - 1, axis=1)[:, k - 1]
    near = np.empty((len(distance), k), dtype=np.int64)
    for row, (values, most) in enumerate(zip(distance, furthest, strict=True)):
        candidates = np.flatnonzero(values <= most)  # more than k where several are as far as the k-th
        near[row] = candidates[np.argsort(values[candidates], kind="stable")[:k]]
    return near
