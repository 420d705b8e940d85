"""Estimates each camera's clock skew from joined tracklets. For the report only: no time is corrected with it.

People walk between two cameras equally fast in both directions. If b's clock is ahead of a's, the walk from a to b
seems longer and the walk back shorter, each by the skew: half the difference of the two median gaps is skew_b - skew_a.
Cameras with overlapping views see a person at the same time, so the median shift itself is the difference. Weighted
least squares over all pairs of cameras, robust against pairs that contradict the others (Huber 1964), gives each
camera's skew relative to the mean of the cameras that it is connected with.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from schemas.arrays import Floats, Ints

#: Longer gaps are not used, seconds: they contain stays, which differ between the two directions.
LONGEST_S = 600.0
#: Fewest gaps of which a median is used.
FEWEST = 5
#: Smallest standard error of a pair of cameras, seconds: the two directions of a walk are never exactly alike.
_BEST_S = 0.1
#: Residuals beyond this many standard errors are weighted down.
_HUBER = 2.0
_ITERATIONS, _SETTLED_S = 20, 1e-3


class Differences(NamedTuple):
    """Differences skew[second] - skew[first] of e pairs of cameras."""

    first: Ints  # (e,)
    second: Ints  # (e,)
    shift_s: Floats  # (e,) second's clock ahead of first's
    error_s: Floats  # (e,) standard error


@dataclass(frozen=True)
class ClockSkews:
    """Skews of c cameras."""

    skew_s: Floats  # (c,) relative to the mean of its group, positive: ahead; NaN if unknown
    error_s: Floats  # (c,) standard error; NaN if unknown
    group: Ints  # (c,) the same number for cameras that are connected by pairs
    pairs: Ints  # (c,) number of cameras that it was compared with


def clock_skews(cameras: int, *differences: Differences) -> ClockSkews:
    """Each camera's skew from differences of both kinds, see `differences_of_gaps` and `differences_of_shifts`."""
    first, second, shift, error = (np.concatenate(c) for c in zip(*differences, strict=True))
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(cameras, cameras))
    group = connected_components(graph, directed=False)[1].astype(np.int64)
    skew, errors = np.full(cameras, np.nan), np.full(cameras, np.nan)
    for number in np.unique(group[first]).tolist():
        members, edges = np.flatnonzero(group == number), np.flatnonzero(group[first] == number)
        place = np.full(cameras, -1)
        place[members] = np.arange(len(members))
        skew[members], errors[members] = _solve(
            len(members), place[first[edges]], place[second[edges]], shift[edges], error[edges]
        )
    return ClockSkews(skew, errors, group, np.bincount(np.concatenate([first, second]), minlength=cameras))


def differences_of_gaps(cameras: int, earlier: Ints, later: Ints, gap_s: Floats) -> Differences:
    """Differences from n consecutive tracklets of one person at two cameras (numbers `earlier` and `later`, (n,)).

    `gap_s` (n,): from the end at `earlier` to the start at `later`, by the cameras' own clocks; negative if a clock is
    wrong by more than the walk takes. Uses gaps up to LONGEST_S of pairs of cameras with at least FEWEST gaps in each
    direction.
    """
    apart = (earlier != later) & (gap_s <= LONGEST_S)
    keys, median, error = _medians(earlier[apart] * cameras + later[apart], gap_s[apart])
    a, b = np.divmod(keys, cameras)
    place = np.searchsorted(keys, b * cameras + a).clip(0, max(len(keys) - 1, 0))
    there = np.flatnonzero((a < b) & (keys[place] == b * cameras + a))
    back = place[there]
    return Differences(a[there], b[there], (median[there] - median[back]) / 2, np.hypot(error[there], error[back]) / 2)


def differences_of_shifts(cameras: int, first: Ints, second: Ints, shift_s: Floats) -> Differences:
    """Differences from n joined tracklets of cameras with overlapping views (numbers `first` and `second`, (n,)).

    `shift_s` (n,): how much later the middle of the passage is by `second`'s clock than by `first`'s.
    """
    ahead = np.where(first < second, shift_s, -shift_s)
    apart = first != second
    key = np.minimum(first, second) * cameras + np.maximum(first, second)
    keys, median, error = _medians(key[apart], ahead[apart])
    a, b = np.divmod(keys, cameras)
    return Differences(a, b, median, error)


def _medians(key: Ints, values: Floats) -> tuple[Ints, Floats, Floats]:
    """Keys with at least FEWEST values, ascending, with the medians of their values and the medians' standard errors.

    The standard error is half the distance between the order statistics one binomial standard deviation below and above
    the middle (Woodruff 1952), which holds for any distribution.
    """
    order = np.lexsort((values, key))
    keys, begin, many = np.unique(key[order], return_index=True, return_counts=True)
    enough = many >= FEWEST
    keys, begin, many, ordered = keys[enough], begin[enough], many[enough], values[order]
    middle = (ordered[begin + (many - 1) // 2] + ordered[begin + many // 2]) / 2 if len(keys) else np.empty(0)
    reach = np.sqrt(many) / 2
    low = np.floor((many - 1) / 2 - reach).clip(0).astype(np.int64)
    high = np.minimum(np.ceil((many - 1) / 2 + reach).astype(np.int64), many - 1)
    error = (ordered[begin + high] - ordered[begin + low]) / 2 if len(keys) else np.empty(0)
    return keys.astype(np.int64), middle, np.maximum(error, _BEST_S)


def _solve(n: int, first: Ints, second: Ints, shift: Floats, error: Floats) -> tuple[Floats, Floats]:
    """(n,) skews with mean zero, and (n,) their standard errors. All n cameras must be connected."""
    weight = 1 / error**2
    used, skew = weight, np.zeros(n)
    for _ in range(_ITERATIONS):
        before, pull = skew, np.bincount(second, used * shift, n) - np.bincount(first, used * shift, n)
        skew = np.linalg.solve(_normal(n, first, second, used), pull)
        excess = np.abs(skew[second] - skew[first] - shift) / error
        if np.abs(skew - before).max() < _SETTLED_S:
            break
        used = weight / np.maximum(excess / _HUBER, 1)
    # Without the variance of the mean, which the constant in every cell of the matrix added.
    variance = np.diag(np.linalg.inv(_normal(n, first, second, used))) - 1 / (n * used.mean())
    return skew - skew.mean(), np.sqrt(variance.clip(0))


def _normal(n: int, first: Ints, second: Ints, weight: Floats) -> Floats:
    """(n, n) The graph's weighted Laplacian, plus a constant in every cell that fixes the skews' mean at zero."""
    laplacian = np.full((n, n), weight.mean() / n)
    np.add.at(laplacian, (first, first), weight)
    np.add.at(laplacian, (second, second), weight)
    np.add.at(laplacian, (first, second), -weight)
    np.add.at(laplacian, (second, first), -weight)
    return laplacian
