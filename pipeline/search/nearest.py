"""Distances between a probe and stored vectors of one model. Every vector asked for is compared: there is no index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Floats, Ints

#: Vectors compared at once, so that memory does not grow with the history.
_VECTORS = 4096

_PROTOTYPES = "SELECT identity_id AS id, v FROM prototype WHERE model_id = :model AND identity_id = ANY(:ids)"
_COLUMNS = {"id": "int8", "v": "halfvec"}
_FEATURES = "SELECT crop_id AS id, v FROM crop_embedding WHERE model_id = :model AND crop_id = ANY(:ids)"


@dataclass(frozen=True)
class Gallery:
    """The prototypes of n identities under one model, to compare probes with."""

    ids: list[int]  # (n,) of the identities that have prototypes
    vectors: Ints  # (n,) number of prototypes of each
    _v: NDArray[np.float16]  # (sum of vectors, D) identity by identity

    @classmethod
    def read(cls, connection: Connection, model_id: int, ids: Sequence[int]) -> "Gallery":
        """The identities of `ids` that `model_id` knows, in the order of `ids`."""
        rows = copy_out(connection, _PROTOTYPES, {"model": model_id, "ids": list(ids)}, _COLUMNS)
        place = {identity: number for number, identity in enumerate(ids)}
        owner = np.array([place[int(i)] for i in rows["id"]], np.int64)
        order = np.argsort(owner, kind="stable")
        found, vectors = np.unique(owner, return_counts=True)
        return cls([ids[i] for i in found.tolist()], vectors, np.asarray(rows["v"], np.float16)[order])

    def distances(self, core: ReIDCore, feature: Floats) -> Floats:
        """(n,) Distance of the feature (D,) to the nearest prototype (mean or medoid) of each identity."""
        if not len(self.ids):
            return np.empty(0)
        parts = [
            _distances(core, feature, self._v[start : start + _VECTORS]) for start in range(0, len(self._v), _VECTORS)
        ]
        begin = np.cumsum(self.vectors) - self.vectors
        return np.asarray(np.minimum.reduceat(np.concatenate(parts), begin), np.float64)


@dataclass(frozen=True)
class Probe:
    """A probe's feature, ready to be compared with vectors of the same model. Distances are symmetric and attended."""

    connection: Connection
    core: ReIDCore
    model_id: int
    feature: Floats  # (D,)

    def distances_to_identities(self, ids: Sequence[int]) -> dict[int, float]:
        """The distance to the nearest prototype (mean or medoid) of each identity that has one."""
        return self._distances(_PROTOTYPES, ids)

    def distances_to_crops(self, ids: Sequence[int]) -> dict[int, float]:
        """The distance to the feature of each crop that has one."""
        return self._distances(_FEATURES, ids)

    def _distances(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        if not ids:
            return {}
        parameters = {"model": self.model_id, "ids": list(ids)}
        rows = copy_out(self.connection, query, parameters, _COLUMNS)
        owners = [int(i) for i in rows["id"]]
        nearest: dict[int, float] = {}
        for start in range(0, len(owners), _VECTORS):
            distances = _distances(self.core, self.feature, rows["v"][start : start + _VECTORS]).tolist()
            for i, distance in zip(owners[start : start + _VECTORS], distances, strict=True):
                nearest[i] = min(distance, nearest.get(i, distance))
        return nearest


def _distances(core: ReIDCore, feature: Floats, stored: Column) -> Floats:
    """(n,) Symmetric distances of the feature (D,) to stored vectors (n, D)."""
    vectors = np.asarray(stored, dtype=np.float64)
    return symmetric_distances(core, np.ascontiguousarray(np.broadcast_to(feature, vectors.shape)), vectors)
