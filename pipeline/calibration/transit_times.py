"""Learns the transit times of a city's own routes from its current decisions, as a new calibration.

Each join counts with the probability of its appearance alone, since times would confirm themselves. Strangers are the
pairs that were kept apart.
"""

import numpy as np
from scipy.special import expit

from pipeline.association.transit import max_lookback_s, prior_times
from pipeline.association.transit_learning import learn_times
from pipeline.city import watermarks
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, insert_calibration
from pipeline.resolve.calibrations import current_calibration
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.calibration import TransitTimes
from schemas.errors import InputError
from schemas.levels import UPWARD, Level

#: A level with fewer joins keeps the times that it has.
MIN_JOINS = 50

_DECISIONS = (
    "SELECT d.left_at, d.right_at, d.way_s, d.gap_s, d.verdict = 'join', d.appearance_log_odds FROM match_decision d "
    "JOIN run r ON r.id = d.run_id WHERE r.level = CAST(:level AS unit_level) AND r.superseded_at IS NULL "
    "AND r.model_id = :model AND d.gap_s IS NOT NULL AND d.appearance_log_odds IS NOT NULL "
    "AND d.verdict IN ('join', 'apart') ORDER BY d.id"
)
_COLUMNS = {
    "left_at": "text",
    "right_at": "text",
    "expected_s": "float8",
    "gap_s": "float8",
    "joined": "bool",
    "appearance": "float8",
}


def learn_transit_times(store: Store, model: ModelRow, operator: str, reason: str) -> dict[Level, TransitTimes]:
    """Learns each level's times and adds a calibration of `model` with them; returns the times of the changed levels.

    Everything is then marked to be resolved again. Raises InputError if no level has both a calibration and MIN_JOINS
    joins with times.
    """
    learned: dict[Level, TransitTimes] = {}
    with store.begin() as connection:
        for level in UPWARD[1:]:
            stored = current_calibration(connection, model.id, level)
            rows = copy_out(connection, _DECISIONS, {"level": level.value, "model": model.id}, _COLUMNS)
            joined = np.asarray(rows["joined"], dtype=bool)
            if stored is None or joined.sum() < MIN_JOINS:
                continue
            children, ends = np.unique(np.array([rows["left_at"], rows["right_at"]]), return_inverse=True)
            left, right = ends.reshape(2, -1)
            lookback_s = max_lookback_s(store.settings.association.horizon_s(level))
            times = learn_times(
                (stored.value.transit or prior_times(lookback_s)).lookback_s,
                children.tolist(),
                left,
                right,
                np.asarray(rows["expected_s"]),
                np.asarray(rows["gap_s"]),
                joined,
                probability=expit(np.asarray(rows["appearance"])),
            )
            insert_calibration(connection, model.id, stored.value.model_copy(update={"transit": times}))
            learned[level] = times
        if not learned:
            raise InputError(
                f"no level has both a calibration of {model.name} and {MIN_JOINS} joins with times to learn from yet"
            )
        watermarks.mark_everything(connection)
        joins = {level.value: round(times.joins) for level, times in learned.items()}
        details = {"model": model.name, "joins": joins}
        audit(connection, operator, Action.TRANSIT_LEARN, reason=reason, details=details)
    return learned
