"""The audit trail: who did what, where and why, written in the transaction of what was done."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text


class Action(StrEnum):
    """What an audit row records, written `noun.verb`. `Action(stored)` also accepts the spellings of older rows."""

    BACKUP_RESTORE = "backup.restore"
    BACKUP_WRITE = "backup.write"
    CAMERA_ADD = "camera.add"
    CAMERA_CHANGE = "camera.change"
    CAMERA_PAUSE = "camera.pause"
    CAMERA_REMOVE = "camera.remove"
    CAMERA_RESUME = "camera.resume"
    CITY_CHANGE = "city.change"
    CITY_LOAD = "city.load"
    CROP_LOSE = "crop.lose"  # pictures of crops are missing or damaged: found so, or accepted as gone for good
    CROP_RETURN = "crop.return"  # pictures that were gone are there again
    IDENTITY_CONFIRM = "identity.confirm"
    IDENTITY_DENY = "identity.deny"
    INGEST_UNDO = "ingest.undo"
    MODEL_CALIBRATE = "model.calibrate"
    MODEL_COMPARE = "model.compare"
    MODEL_PROMOTE = "model.promote"
    MODEL_REGISTER = "model.register"
    MODEL_REMOVE = "model.remove"
    MODEL_RENAME = "model.rename"
    MODEL_ROLLBACK = "model.rollback"
    MODEL_TRAIN = "model.train"
    MODEL_USE = "model.use"
    PROBE_UPLOAD = "probe.upload"
    REPORT_WRITE = "report.write"
    RESOLVE_AGAIN = "resolve.again"
    SEARCH_START = "search.start"
    TRANSIT_LEARN = "transit.learn"

    @classmethod
    def _missing_(cls, value: object) -> "Action | None":
        return _OLD_SPELLINGS.get(value)


#: Rows of version 0.1 keep what they say; readers see today's action.
_OLD_SPELLINGS: dict[object, Action] = {
    "city load": Action.CITY_LOAD,
    "crop.gone": Action.CROP_LOSE,
    "model.transit": Action.TRANSIT_LEARN,
    "report": Action.REPORT_WRITE,
    "search": Action.SEARCH_START,
}


def audit(
    connection: Connection,
    actor: str,
    action: Action,
    *,
    unit: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any],
) -> None:
    """Appends one row in the connection's transaction."""
    connection.execute(
        text(
            "INSERT INTO audit (actor, action, unit, reason, details) "
            "VALUES (:actor, :action, :unit, :reason, CAST(:details AS jsonb))"
        ),
        {"actor": actor, "action": action.value, "unit": unit, "reason": reason, "details": json.dumps(details)},
    )
