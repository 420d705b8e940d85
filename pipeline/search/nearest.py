"""Distances between a probe and stored vectors of one model. Every vector asked for is compared: there is no index."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from pipeline.store.copy import copy_out
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Floats

#: Vectors compared at once, so that memory does not grow with the history.
_VECTORS = 4096

_PROTOTYPES = "SELECT identity_id AS id, v FROM prototype WHERE model_id = :model AND identity_id = ANY(:ids)"
_FEATURES = "SELECT crop_id AS id, v FROM crop_embedding WHERE model_id = :model AND crop_id = ANY(:ids)"


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
        rows = copy_out(self.connection, query, parameters, {"id": "int8", "v": "halfvec"})
        owners = [int(i) for i in rows["id"]]
        nearest: dict[int, float] = {}
        for start in range(0, len(owners), _VECTORS):
            vectors = np.asarray(rows["v"][start : start + _VECTORS], dtype=np.float64)
            probes = np.ascontiguousarray(np.broadcast_to(self.feature, vectors.shape))
            distances = symmetric_distances(self.core, probes, vectors).tolist()
            for i, distance in zip(owners[start : start + _VECTORS], distances, strict=True):
                nearest[i] = min(distance, nearest.get(i, distance))
        return nearest
