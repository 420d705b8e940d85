"""The distances of the decisions that stand now: what a calibration keeps a profile of, and what is held against it."""

import numpy as np
from sqlalchemy import Connection

from pipeline.store.copy import copy_out
from schemas.arrays import Floats
from schemas.levels import Level

_DISTANCES = (
    "SELECT d.distance FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL "
    "AND r.model_id = :model AND r.level = CAST(:level AS unit_level) "
    "AND (CAST(:within AS text) IS NULL OR r.unit = :within OR starts_with(r.unit, :within || '/'))"
)


def decision_distances(connection: Connection, level: Level, model_id: int, within: str | None = None) -> Floats:
    """(d,) Of all joins, reviews and runners-up of a level, by one model: at and below a unit, or everywhere."""
    at = {"level": level.value, "model": model_id, "within": within}
    return np.asarray(copy_out(connection, _DISTANCES, at, {"distance": "float8"})["distance"], np.float64)
