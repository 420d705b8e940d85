"""Violations: pairs of passages in one group that cannot be one person."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from schemas.arrays import Floats, Ints

#: Smallest possible time gap between passages at two cameras (p,), (p,), in microseconds; -inf where views overlap.
MinGap = Callable[[Ints, Ints], Floats]
#: Pairs processed at a time; bounds memory.
_PAIRS = 2_000_000


def forbidden_pairs(
    group: Ints, camera: Ints, start_us: Ints, end_us: Ints, min_gap: MinGap, largest_min_gap_us: float
) -> int:
    """Number of pairs of passages in one group whose time gap is below `min_gap` of their cameras. All (n,).

    largest_min_gap_us: upper bound of `min_gap`. Only pairs that are nearer in time than this are looked at.
    """
    order = np.lexsort((start_us, group))
    group, start, end, camera = group[order], start_us[order], end_us[order], camera[order]
    # Each passage is compared with the following ones of its group up to the last that starts before its limit.
    limit = end + int(max(largest_min_gap_us, 0.0)) + 1
    n = len(group)
    merged = np.lexsort((np.repeat([1, 0], n), np.concatenate([start, limit]), np.concatenate([group, group])))
    starts = np.cumsum(merged < n)
    until = np.empty(n, dtype=np.int64)
    until[merged[merged >= n] - n] = starts[merged >= n]
    count = np.maximum(until - np.arange(n) - 1, 0)
    found, total = 0, np.cumsum(count)
    for first, last in _blocks(total):
        row = np.repeat(np.arange(first, last), count[first:last])
        begin = total[first:last] - count[first:last]
        other = row + 1 + np.arange(len(row)) - np.repeat(begin - begin[0], count[first:last])
        gap = start[other] - np.minimum(end[row], end[other])
        found += int((gap < min_gap(camera[row], camera[other])).sum())
    return found


def _blocks(total: Ints) -> list[tuple[int, int]]:
    """Ranges of rows with about `_PAIRS` pairs each, from the running total of pairs."""
    if not len(total):
        return []
    cuts = np.searchsorted(total, np.arange(_PAIRS, int(total[-1]) + _PAIRS, _PAIRS), side="right")
    edges = np.unique(np.concatenate([[0], cuts, [len(total)]])).tolist()
    return list(pairwise(edges))
