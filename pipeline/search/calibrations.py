"""The search calibration of a model at a level: its own, or another level's with a word."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from schemas.calibration import SearchCalibration
from schemas.levels import UPWARD, Level

_NEWEST = text(
    "SELECT DISTINCT ON (level) id, level, parameters FROM calibration "
    "WHERE model_id = :model AND purpose = 'search' ORDER BY level, id DESC"
)


@dataclass(frozen=True)
class StoredSearchCalibration:
    """A row of the table calibration, of the purpose search."""

    id: int
    value: SearchCalibration


def search_calibration(connection: Connection, model_id: int, level: Level) -> StoredSearchCalibration | None:
    """The newest of (model, level); else that of the nearest other level, of two the upper one. None for cameras.

    A camera's identities are tracklets, of which a person has many: no level's calibration fits them.
    """
    if level is Level.CAMERA:
        return None
    rows = connection.execute(_NEWEST, {"model": model_id})
    found = {
        Level(row.level): StoredSearchCalibration(row.id, SearchCalibration.model_validate(row.parameters))
        for row in rows
    }
    place = UPWARD.index(level)
    nearest = sorted(found, key=lambda other: (abs(UPWARD.index(other) - place), -UPWARD.index(other)))
    return found[nearest[0]] if nearest else None
