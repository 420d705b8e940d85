"""The current state of the city in a few numbers."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.lag import resolve_lag
from pipeline.crops.context_frames import count_frames
from pipeline.store import Store
from schemas.levels import UPWARD

_COUNTS = text(
    "SELECT (SELECT count(*) FROM crop WHERE withdrawn_at IS NULL) AS crops, "
    "(SELECT count(*) FROM crop WHERE withdrawn_at IS NOT NULL) AS withdrawn, "
    "(SELECT count(*) FROM run WHERE superseded_at IS NULL) AS runs, "
    "(SELECT count(*) FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL) AS decisions, "
    "(SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL) AS pending, "
    "(SELECT name FROM model WHERE in_use) AS model"
)


_GONE = text("SELECT count(*) FROM crop WHERE picture_gone_at IS NOT NULL AND withdrawn_at IS NULL")


def gone_pictures(connection: Connection) -> int:
    """Number of crops whose picture was found missing or damaged in the crop store, or accepted as gone.

    Those of them that have no feature take no part in decisions until their picture is there again.
    """
    return int(connection.execute(_GONE).scalar_one())


def status(store: Store) -> dict[str, Any]:
    """Counts of the whole city.

    Keys: levels {camera, building, street, district: number of identities}, crops, withdrawn (crops of undone
    ingests, which take no part), gone (crops whose picture is gone), context_frames, decisions, runs, pending (units to
    resolve), lag (of the last hour, see `pipeline.city.lag`), model (name or None), digest (hex), replica (how the
    replica stands, see `ReplicaState`; None without one).
    """
    replica = store.replica_state()
    with store.begin() as connection:
        counts = connection.execute(_COUNTS).one()
        found = connection.execute(text("SELECT level, count(*) AS many FROM identity_now GROUP BY level"))
        levels = {row.level: row.many for row in found}
        return {
            "levels": {level.value: levels.get(level.value, 0) for level in UPWARD},
            "crops": counts.crops,
            "withdrawn": counts.withdrawn,
            "gone": gone_pictures(connection),
            "context_frames": count_frames(connection),
            "decisions": counts.decisions,
            "runs": counts.runs,
            "pending": counts.pending,
            "lag": asdict(resolve_lag(connection)),
            "model": counts.model,
            "digest": decision_digest(connection),
            "replica": None if replica is None else asdict(replica),
        }
