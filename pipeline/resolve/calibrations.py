"""The stored calibrations of pairs that a model uses at a level: the newest that holds for a unit and a window.

A calibration with labels holds for the whole city and all windows. One that was learned from a unit's own crops holds
for that unit and those below it, from a window on (table `learning`).
"""

from dataclasses import dataclass
from datetime import datetime
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


@dataclass(frozen=True)
class Calibrations:
    """The calibrations of (model, level) that hold for a unit, the newest last."""

    #: The first window that each holds for (None: it holds for all), and the calibration.
    versions: tuple[tuple[datetime | None, StoredCalibration], ...] = ()

    def at(self, window: datetime) -> StoredCalibration | None:
        """The one that holds for the window, None where there is none."""
        holding = (one for start, one in reversed(self.versions) if start is None or start <= window)
        return next(holding, None)

    @property
    def newest(self) -> StoredCalibration | None:
        return self.versions[-1][1] if self.versions else None


_CALIBRATIONS = text(
    "SELECT c.id, c.parameters, l.holds_from FROM calibration c LEFT JOIN learning l ON l.id = c.learning_id "
    "WHERE c.model_id = :model AND c.level = :level AND c.purpose = 'pair' AND (c.learning_id IS NULL "
    "OR l.unit = :unit OR starts_with(CAST(:unit AS text), l.unit || '/')) ORDER BY c.id"
)


def read_calibrations(connection: Connection, model_id: int, level: Level, unit: str | None = None) -> Calibrations:
    """The calibrations of (model, level) that hold for the unit; without one, those with labels."""
    rows = connection.execute(_CALIBRATIONS, {"model": model_id, "level": level.value, "unit": unit}).all()
    # What holds for all windows replaces everything before it.
    first = max((place for place, row in enumerate(rows) if row.holds_from is None), default=0)
    return Calibrations(
        tuple(
            (row.holds_from, StoredCalibration(row.id, LevelCalibration.model_validate(row.parameters)))
            for row in rows[first:]
        )
    )


def current_calibration(
    connection: Connection, model_id: int, level: Level, unit: str | None = None
) -> StoredCalibration | None:
    """The newest calibration of (model, level) that holds for the unit, None where there is none."""
    return read_calibrations(connection, model_id, level, unit).newest


def current_calibrations(
    connection: Connection, model_id: int, unit: str | None = None
) -> dict[Level, LevelCalibration]:
    """The newest calibration of each level above the cameras that has one, for the unit."""
    found = {level: current_calibration(connection, model_id, level, unit) for level in UPWARD[1:]}
    return {level: stored.value for level, stored in found.items() if stored is not None}


def calibration_by_id(connection: Connection, id_: int) -> StoredCalibration | None:
    row = connection.execute(text("SELECT id, parameters FROM calibration WHERE id = :id"), {"id": id_}).one_or_none()
    return None if row is None else StoredCalibration(row.id, LevelCalibration.model_validate(row.parameters))
