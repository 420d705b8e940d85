"""The one way to the crops' features: as a model compares them, which for a feature space is not as they are stored.

Raw features are stored, under the model that computed them. What compares, averages or counts features reads them here.
"""

from collections.abc import Mapping

import numpy as np
from sqlalchemy import Connection

from pipeline.registry import ModelRow
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from reid_core.serving.core import ReIDCore, compared_features
from schemas.arrays import Floats


def read_features(
    connection: Connection,
    core: ReIDCore,
    model: ModelRow,
    query: str,
    parameters: Mapping[str, object],
    columns: Mapping[str, str],
    camera: str | None = None,
) -> tuple[dict[str, Column], Floats]:
    """The rows of a query, and their features as `model` compares them, float64 (n, D).

    The query selects `columns`, then the crop's feature `v` of the model :model, then its camera; without the camera
    where all crops are of one `camera`. core: of `model`.
    """
    types = {**columns, "v": "halfvec"} | ({"camera": "text"} if camera is None else {})
    rows = copy_out(connection, query, {**parameters, "model": model.features_id}, types)
    stored = np.asarray(rows.pop("v"))
    cameras = [camera] * len(stored) if camera is not None else list(rows["camera"])
    return rows, compared_features(core, stored, cameras)
