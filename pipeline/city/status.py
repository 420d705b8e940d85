"""The current state of the city in a few numbers."""

from typing import Any

from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.store import Store
from schemas.levels import UPWARD

_COUNTS = text(
    "SELECT (SELECT count(*) FROM crop) AS crops, (SELECT count(*) FROM run WHERE superseded_at IS NULL) AS runs, "
    "(SELECT count(*) FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL) AS decisions, "
    "(SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL) AS pending, "
    "(SELECT name FROM model WHERE in_use) AS model"
)


def status(store: Store) -> dict[str, Any]:
    """Counts of the whole city.

    Keys: levels {camera, building, street, district: number of identities}, crops, decisions, runs, pending (units to
    resolve), model (name or None), digest (hex).
    """
    with store.begin() as connection:
        counts = connection.execute(_COUNTS).one()
        found = connection.execute(text("SELECT level, count(*) AS many FROM identity_now GROUP BY level"))
        levels = {row.level: row.many for row in found}
        return {
            "levels": {level.value: levels.get(level.value, 0) for level in UPWARD},
            "crops": counts.crops,
            "decisions": counts.decisions,
            "runs": counts.runs,
            "pending": counts.pending,
            "model": counts.model,
            "digest": decision_digest(connection),
        }
