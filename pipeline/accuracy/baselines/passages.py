"""What the baselines group: passages with features, places and times; and who is nearest to whom."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.accuracy.metrics import Slack
from pipeline.association.nodes import unit_rows
from schemas.arrays import Bools, Floats, Ints, Singles

#: Thresholds in, the group of each passage out: (n,) numbers that mean nothing.
Cut = Callable[..., Ints]
#: Cells of a matrix of likeness that are held at a time: 128 MB in float32.
CELLS = 32_000_000
#: Columns in one group of `nearest_others`.
_WIDTH = 64


@dataclass(frozen=True)
class Passages:
    """n passages before cameras. Untimed ones need a `slack` of -inf."""

    features: NDArray[np.float32] | NDArray[np.float64]  # (n, D)
    camera: Ints  # (n,) any numbers that `slack` knows
    start_us: Ints  # (n,) microseconds UTC
    end_us: Ints  # (n,)
    slack: Slack  # a gap below this is impossible, microseconds

    def __len__(self) -> int:
        return len(self.features)

    def directions(self) -> Singles:
        """(n, D) rows of length 1. No row may be zero, as none in the store is."""
        rows = np.array(self.features, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def impossible(self, left: Ints, right: Ints) -> Bools:
        """Whether two passages cannot be one person; broadcasts."""
        gap = np.maximum(self.start_us[left], self.start_us[right]) - np.minimum(self.end_us[left], self.end_us[right])
        result: Bools = gap < self.slack(self.camera[left], self.camera[right])
        return result

    def distances(self, rows: Ints, impossible: float) -> Floats:
        """(r, r) cosine distances among some, `impossible` where they cannot be one person, 0 on the diagonal."""
        directions = unit_rows(self.features[rows].astype(np.float64))
        distance = np.maximum(1 - directions @ directions.T, 0.0)
        distance[self.impossible(rows[:, None], rows[None])] = impossible
        np.fill_diagonal(distance, 0.0)
        return distance


def untimed(features: NDArray[np.float32] | NDArray[np.float64]) -> Passages:
    """Passages of which nothing but the features is known, so that nothing is impossible."""
    nothing = np.zeros(len(features), dtype=np.int64)
    return Passages(features, nothing, nothing, nothing, lambda a, b: np.full(np.broadcast(a, b).shape, -np.inf))


def nearest_others(directions: Singles, k: int) -> Iterator[tuple[Ints, Ints, Singles]]:
    """Blocks of (rows (r,), their nearest others (r, k) ascending, distances (r, k)), exact in float32.

    Fewer columns where there are fewer others. Columns are looked through in groups: the nearest k are in the k groups
    that hold the nearest one each.
    """
    n = len(directions)
    k = min(k, n - 1)
    groups = max(-(-n // _WIDTH), 1)
    padded = np.zeros((groups * _WIDTH, directions.shape[1]), np.float32)
    padded[:n] = directions
    step = max(1, min(CELLS // len(padded), n))
    room = np.empty((step, len(padded)), np.float32)
    for first in range(0, n if k > 0 else 0, step):
        rows = np.arange(first, min(first + step, n))
        similarity = np.matmul(directions[rows], padded.T, out=room[: len(rows)])  # (r, groups * _WIDTH)
        similarity[:, n:] = -np.inf
        similarity[np.arange(len(rows)), rows] = -np.inf
        best = similarity.reshape(len(rows), _WIDTH, groups).max(axis=1)  # group g: columns g, g + groups, ...
        most = min(k, groups)
        chosen = np.argpartition(-best, most - 1, axis=1)[:, :most]
        candidates = (chosen[:, :, None] + groups * np.arange(_WIDTH)).reshape(len(rows), -1)
        values = np.take_along_axis(similarity, candidates, axis=1)
        nearest = np.argpartition(-values, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(values, nearest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        columns = np.take_along_axis(np.take_along_axis(candidates, nearest, axis=1), order, axis=1)
        yield rows, columns, 1 - np.take_along_axis(values, order, axis=1)
