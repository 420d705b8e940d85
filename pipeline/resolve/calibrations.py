"""The stored calibration of pairs that a model uses at a level: the newest of (model, level)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection, text

from schemas.calibration import LevelCalibration
from schemas.keys import content_hash
from schemas.levels import UPWARD, Level


@dataclass(frozen=True)
class StoredCalibration:
    """A row of the table calibration."""

    id: int
    value: LevelCalibration

    @cached_property
    def digest(self) -> bytes:
        return content_hash("calibration", (self.value.model_dump_json(),))


def current_calibration(connection: Connection, model_id: int, level: Level) -> StoredCalibration | None:
    """The newest calibration of (model, level), None where there is none."""
    parameters = {"model": model_id, "level": level.value}
    return _read(
        connection, "model_id = :model AND level = :level AND purpose = 'pair' ORDER BY id DESC LIMIT 1", parameters
    )


def current_calibrations(connection: Connection, model_id: int) -> dict[Level, LevelCalibration]:
    """The newest calibration of each level above the cameras that has one."""
    found = {level: current_calibration(connection, model_id, level) for level in UPWARD[1:]}
    return {level: stored.value for level, stored in found.items() if stored is not None}


def calibration_by_id(connection: Connection, id_: int) -> StoredCalibration | None:
    return _read(connection, "id = :id", {"id": id_})


def _read(connection: Connection, which: str, parameters: Mapping[str, object]) -> StoredCalibration | None:
    row = connection.execute(text(f"SELECT id, parameters FROM calibration WHERE {which}"), parameters).one_or_none()
    return None if row is None else StoredCalibration(row.id, LevelCalibration.model_validate(row.parameters))
