"""Transit times of a city's own units, learned from what its resolves decided: an explicit step, a new calibration.

Joins count by how sure their appearance alone is, since times that judged themselves would confirm themselves. The
strangers are those whom each person was told apart from.
"""

import numpy as np
from scipy.special import expit

from pipeline.association.transit import prior
from pipeline.association.transit_learning import learn
from pipeline.city import watermarks
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, insert_calibration
from pipeline.resolve.calibrations import current_calibration
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.calibration import TransitTimes
from schemas.errors import InputError
from schemas.levels import UPWARD, Level

#: With fewer joins a level keeps the times that it has.
ENOUGH = 50

_DECIDED = (
    "SELECT d.left_at, d.right_at, d.way_s, d.gap_s, d.verdict = 'join', d.appearance_log_odds FROM match_decision d "
    "JOIN run r ON r.id = d.run_id WHERE r.level = CAST(:level AS unit_level) AND r.superseded_at IS NULL "
    "AND r.model_id = :model AND d.gap_s IS NOT NULL AND d.appearance_log_odds IS NOT NULL "
    "AND d.verdict IN ('join', 'apart') ORDER BY d.id"
)
_KINDS = {
    "left_at": "text",
    "right_at": "text",
    "way_s": "float8",
    "gap_s": "float8",
    "joined": "bool",
    "appearance": "float8",
}


def learn_transit_times(store: Store, model: ModelRow, operator: str, reason: str) -> dict[Level, TransitTimes]:
    """Learns each level's from the current decisions, and makes it part of a new calibration of `model`; what changed.

    Everything resolved with the model is then to be looked at again. Raises InputError where no level has a calibration
    and enough joins.
    """
    found: dict[Level, TransitTimes] = {}
    with store.begin() as connection:
        for level in UPWARD[1:]:
            stored = current_calibration(connection, model.id, level)
            rows = copy_out(connection, _DECIDED, {"level": level.value, "model": model.id}, _KINDS)
            joined = np.asarray(rows["joined"], dtype=bool)
            if stored is None or joined.sum() < ENOUGH:
                continue
            children, ends = np.unique(np.array([rows["left_at"], rows["right_at"]]), return_inverse=True)
            left, right = ends.reshape(2, -1)
            horizon_s = store.settings.association.horizon_s(level)
            times = learn(
                (stored.value.transit or prior(float(min(horizon_s, 86_400)))).looked_s,
                children.tolist(),
                left,
                right,
                np.asarray(rows["way_s"]),
                np.asarray(rows["gap_s"]),
                joined,
                probability=expit(np.asarray(rows["appearance"])),
            )
            insert_calibration(connection, model.id, stored.value.model_copy(update={"transit": times}))
            found[level] = times
        if not found:
            raise InputError(
                f"no level has a calibration of {model.name} and {ENOUGH} joins with times to learn from yet"
            )
        watermarks.mark_everything(connection)
        joins = {level.value: round(times.joins) for level, times in found.items()}
        audit(
            connection,
            operator,
            Action.TRANSIT_LEARN,
            reason=reason,
            details={"model": model.name, "joins": joins},
        )
    return found
