"""Distances between a probe and stored vectors of one model, read for one search or kept in memory (`index`).

No approximate index: every vector asked for is looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from pipeline.registry import ModelRow
from pipeline.search.likelihood import DistanceCounts
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Bools, Floats, Ints, Singles

#: Identities that a probe is scored against one by one. Of more, half of this many are an even sample, and half the
#: nearest of the others by cosine.
EXACT = 16_000
#: Identities read at once: bounds what is copied beside their vectors.
_IDENTITIES = 20_000
#: Vectors compared at once, so that memory does not grow with the history.
_VECTORS = 4096
#: Of identities in memory, the nearest ones whose distance is the core's, to the last bit.
_NEAREST = 256

_PROTOTYPES = "SELECT identity_id AS id, v FROM prototype WHERE model_id = :model AND identity_id = ANY(:ids)"
_COLUMNS = {"id": "int8", "v": "halfvec"}


class Fast(Protocol):
    """Distances of one model in this process; see `fast_distances`, which loads torch."""

    def cosines(self, feature: Floats, vectors: NDArray[np.float16], inverse_lengths: Singles) -> Singles: ...

    def distances(self, feature: Floats, vectors: NDArray[np.float16], rows: Ints) -> Floats: ...


@dataclass(frozen=True)
class Stored:
    """Prototypes of m identities in memory, one identity after another, with what comparing them fast needs."""

    v: NDArray[np.float16]  # (p, D)
    inverse_lengths: Singles  # (p,)
    first: Ints  # (m,) first row of each identity
    fast: Fast


@dataclass(frozen=True)
class Gallery:
    """The prototypes of n identities under one model, to compare probes with."""

    ids: Ints  # (n,) of the identities that have prototypes
    vectors: Ints  # (n,) number of prototypes of each
    _v: NDArray[np.float16]  # (p, D); without `_stored` those of the n identities, one after another
    _stored: Stored | None = None  # of these and other identities
    _place: Ints | None = None  # (n,) place of each identity among those stored

    @classmethod
    def read(
        cls, connection: Connection, model_id: int, ids: Sequence[int], check: Callable[[int, int], None] | None = None
    ) -> "Gallery":
        """The identities of `ids` that `model_id` knows, in the order of `ids`.

        check: is called with the number of prototypes and of channels read so far, and raises where these are too many.
        """
        place = {identity: number for number, identity in enumerate(ids)}
        owners, parts, many = [np.empty(0, np.int64)], [], 0
        for start in range(0, len(ids), _IDENTITIES):
            some = {"model": model_id, "ids": list(ids[start : start + _IDENTITIES])}
            rows = copy_out(connection, _PROTOTYPES, some, _COLUMNS)
            owner = np.array([place[int(i)] for i in rows["id"]], np.int64)
            order = np.argsort(owner, kind="stable")
            owners.append(owner[order])
            parts.append(np.asarray(rows["v"], np.float16)[order])
            many += len(owner)
            if check is not None and len(owner):
                check(many, parts[-1].shape[1])
        found, vectors = np.unique(np.concatenate(owners), return_counts=True)
        v = np.concatenate([part for part in parts if len(part)]) if many else np.empty((0, 0), np.float16)
        return cls(np.array(ids, np.int64)[found], vectors, v)

    @classmethod
    def of(cls, stored: Stored, ids: Ints, vectors: Ints, place: Ints) -> "Gallery":
        """n of the stored identities: ids, numbers of prototypes and places among the stored ones, all (n,)."""
        return cls(ids, vectors, stored.v, stored, place)

    def compare(
        self, core: ReIDCore, feature: Floats, most: int | None = None, wanted: Bools | None = None
    ) -> "Compared":
        """Compares the feature (D,) with each identity, at most about `most` (EXACT) of them exactly.

        Of more, an even sample and those nearest by cosine are scored exactly, and as many again of the nearest that
        are `wanted` (n,), so that whoever shows these alone has enough of them. The others are strangers far away, of
        whom only the distribution matters: each gets the distance that its cosine predicts, by a line through the
        sample, plus the residual of the one of the sample that is nearest when they are ordered by cosine.
        """
        n, most = len(self.ids), most or EXACT
        sample = np.arange(0, n, max(1, -(-n // (most // 2))))
        if n <= most:
            return Compared(self._scored(core, feature, np.arange(n)), np.ones(n, dtype=bool), sample)
        cosine = self._cosine_distances(feature)
        # Of more prototypes one is nearer by chance, so each identity stands beside those that have as many.
        order = np.argsort(cosine - self._usual(cosine)[self.vectors], kind="stable")
        sampled = np.zeros(n, dtype=bool)
        sampled[sample] = True
        others = order[~sampled[order]]
        exact = sampled.copy()
        exact[others[: most - len(sample)]] = True
        if wanted is not None:
            exact[others[wanted[others]][: most - len(sample)]] = True
        rest = others[~exact[others]]
        distance = np.empty(n)
        distance[exact] = self._scored(core, feature, np.flatnonzero(exact))
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        beside = sample[np.argsort(place[sample])]
        slope, intercept = np.polyfit(cosine[sample], distance[sample], 1)
        residual = distance[beside] - (intercept + slope * cosine[beside])
        stratum = np.searchsorted(place[beside], place[rest]).clip(max=len(beside) - 1)
        distance[rest] = (intercept + slope * cosine[rest] + residual[stratum]).clip(0, 2)
        return Compared(distance, exact, sample)

    @property
    def _first(self) -> Ints:
        """(n,) First row of each identity in `_v`."""
        if self._stored is None or self._place is None:
            return np.asarray(np.cumsum(self.vectors) - self.vectors, np.int64)
        return self._stored.first[self._place]

    def _usual(self, cosine: Floats) -> Floats:
        """(most vectors + 1,) Mean cosine distance of the identities with each number of prototypes."""
        count = np.bincount(self.vectors)
        return np.asarray(np.bincount(self.vectors, cosine) / np.maximum(count, 1), np.float64)

    def _scored(self, core: ReIDCore, feature: Floats, rows: Ints) -> Floats:
        """(r,) Attended distance of the feature to the nearest prototype (mean or medoid) of these identities.

        Of stored ones in float32, and those of the nearest as the core gives them.
        """
        if self._stored is None or len(rows) <= _NEAREST:
            return self._smallest(rows, lambda held: self._exactly(core, feature, held))
        distance = self.fast_distances(feature, rows)
        nearest = np.argpartition(distance, _NEAREST)[:_NEAREST]
        distance[nearest] = self._smallest(rows[nearest], lambda held: self._exactly(core, feature, held))
        return distance

    def fast_distances(self, feature: Floats, rows: Ints) -> Floats:
        """(r,) The same of identities in memory, all in float32."""
        assert self._stored is not None
        fast = self._stored.fast
        return self._smallest(rows, lambda held: fast.distances(feature, self._v, held))

    def _smallest(self, rows: Ints, distances: Callable[[Ints], Floats]) -> Floats:
        """(r,) The smallest of the distances (p,) that a function gives for the prototypes (rows of _v) of each."""
        if not len(rows):
            return np.empty(0)
        count = self.vectors[rows]
        begin = np.cumsum(count) - count
        held = np.arange(count.sum()) - np.repeat(begin - self._first[rows], count)
        return np.asarray(np.minimum.reduceat(distances(held), begin), np.float64)

    def _exactly(self, core: ReIDCore, feature: Floats, held: Ints) -> Floats:
        parts = [_distances(core, feature, self._v[held[i : i + _VECTORS]]) for i in range(0, len(held), _VECTORS)]
        return np.concatenate(parts)

    def _cosine_distances(self, feature: Floats) -> Floats:
        """(n,) Cosine distance of the feature to the nearest prototype of each identity."""
        if self._stored is not None and self._place is not None:
            stored = self._stored
            cosine = stored.fast.cosines(feature, stored.v, stored.inverse_lengths)
            return 1 - np.maximum.reduceat(cosine, stored.first)[self._place].astype(np.float64)
        probe = (feature / np.linalg.norm(feature)).astype(np.float32)
        parts = []
        for start in range(0, len(self._v), _VECTORS):
            vectors = self._v[start : start + _VECTORS].astype(np.float32)
            parts.append(1 - vectors @ probe / np.linalg.norm(vectors, axis=1))
        return np.asarray(np.minimum.reduceat(np.concatenate(parts), self._first), np.float64)


@dataclass(frozen=True)
class Compared:
    """The distances of one probe to n identities."""

    distance: Floats  # (n,)
    exact: Bools  # (n,) whether it was scored; else it stands for one of the strangers beyond the nearest
    sample: Ints  # (s,) rows of an even sample, all of them scored

    def counts(self, vectors: Ints) -> DistanceCounts:
        """Counts for the reference, from the sample alone, which no shortlist moves. vectors: (n,) of prototypes."""
        weight = len(self.distance) / max(len(self.sample), 1)
        return DistanceCounts.of(self.distance[self.sample], vectors[self.sample], weight)


@dataclass(frozen=True)
class Probe:
    """A probe's feature, ready to be compared with vectors of the same model. Distances are symmetric and attended."""

    connection: Connection
    core: ReIDCore
    model: ModelRow
    feature: Floats  # (D,) as the model compares it

    def distances_to_identities(self, ids: Sequence[int]) -> dict[int, float]:
        """The distance to the nearest prototype (mean or medoid) of each identity that has one."""
        if not ids:
            return {}
        rows = copy_out(self.connection, _PROTOTYPES, {"model": self.model.id, "ids": list(ids)}, _COLUMNS)
        nearest: dict[int, float] = {}
        for i, distance in zip(map(int, rows["id"]), self.distances(rows["v"]).tolist(), strict=True):
            nearest[i] = min(distance, nearest.get(i, distance))
        return nearest

    def distances(self, vectors: Column) -> Floats:
        """(n,) The distances to vectors (n, D)."""
        parts = [
            _distances(self.core, self.feature, vectors[i : i + _VECTORS]) for i in range(0, len(vectors), _VECTORS)
        ]
        return np.concatenate([np.empty(0), *parts])


def _distances(core: ReIDCore, feature: Floats, stored: Column) -> Floats:
    """(n,) Symmetric distances of the feature (D,) to stored vectors (n, D)."""
    vectors = np.asarray(stored, dtype=np.float64)
    return symmetric_distances(core, np.ascontiguousarray(np.broadcast_to(feature, vectors.shape)), vectors)
