"""The input of the baselines: passages with features, cameras and times; and their nearest neighbors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.violations import MinGap
from pipeline.association.nodes import unit_rows
from schemas.arrays import Bools, Floats, Ints, Singles

#: From a threshold, a cosine distance, to the group of each passage: (n,) arbitrary numbers.
Cut = Callable[[float], Ints]
#: Cells of a similarity matrix held at a time: 128 MB in float32.
CELLS = 32_000_000
#: Columns in one group of `nearest_others`.
_GROUP_SIZE = 64


@dataclass(frozen=True)
class Passages:
    """n passages at cameras. For untimed passages `min_gap` must return -inf."""

    features: NDArray[np.float32] | NDArray[np.float64]  # (n, D)
    camera: Ints  # (n,) any numbers that `min_gap` accepts
    start_us: Ints  # (n,) microseconds UTC
    end_us: Ints  # (n,)
    min_gap: MinGap

    def __len__(self) -> int:
        return len(self.features)

    def directions(self) -> Singles:
        """(n, D) Features scaled to length 1, float32. No feature may be zero; the store holds none."""
        rows = np.array(self.features, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def impossible(self, left: Ints, right: Ints) -> Bools:
        """Whether two passages cannot be one person; broadcasts."""
        gap = np.maximum(self.start_us[left], self.start_us[right]) - np.minimum(self.end_us[left], self.end_us[right])
        result: Bools = gap < self.min_gap(self.camera[left], self.camera[right])
        return result

    def distances(self, rows: Ints, impossible: float) -> Floats:
        """(r, r) Cosine distances among these passages, `impossible` where they cannot be one person; diagonal 0."""
        directions = unit_rows(self.features[rows].astype(np.float64))
        distance = np.maximum(1 - directions @ directions.T, 0.0)
        distance[self.impossible(rows[:, None], rows[None])] = impossible
        np.fill_diagonal(distance, 0.0)
        return distance


def untimed(features: NDArray[np.float32] | NDArray[np.float64]) -> Passages:
    """Passages with features only; no pair is impossible."""
    zeros = np.zeros(len(features), dtype=np.int64)
    return Passages(features, zeros, zeros, zeros, lambda a, b: np.full(np.broadcast(a, b).shape, -np.inf))


def nearest_others(directions: Singles, k: int) -> Iterator[tuple[Ints, Ints, Singles]]:
    """Blocks of (rows (r,), their k nearest others (r, k) ascending, distances (r, k)), exact in float32.

    k is lowered to the number of others. Columns are searched in groups: the k nearest lie in the k groups whose own
    nearest columns are nearest.
    """
    n = len(directions)
    k = min(k, n - 1)
    groups = max(-(-n // _GROUP_SIZE), 1)
    padded = np.zeros((groups * _GROUP_SIZE, directions.shape[1]), np.float32)
    padded[:n] = directions
    step = max(1, min(CELLS // len(padded), n))
    buffer = np.empty((step, len(padded)), np.float32)
    for first in range(0, n if k > 0 else 0, step):
        rows = np.arange(first, min(first + step, n))
        similarity = np.matmul(directions[rows], padded.T, out=buffer[: len(rows)])  # (r, groups * _GROUP_SIZE)
        similarity[:, n:] = -np.inf
        similarity[np.arange(len(rows)), rows] = -np.inf
        best = similarity.reshape(len(rows), _GROUP_SIZE, groups).max(axis=1)  # group g: columns g, g + groups, ...
        searched = min(k, groups)
        chosen = np.argpartition(-best, searched - 1, axis=1)[:, :searched]
        candidates = (chosen[:, :, None] + groups * np.arange(_GROUP_SIZE)).reshape(len(rows), -1)
        values = np.take_along_axis(similarity, candidates, axis=1)
        nearest = np.argpartition(-values, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(values, nearest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        columns = np.take_along_axis(np.take_along_axis(candidates, nearest, axis=1), order, axis=1)
        yield rows, columns, 1 - np.take_along_axis(values, order, axis=1)
