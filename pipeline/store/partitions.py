"""The partitions that hold vectors: a part per model, a leaf per UTC day; and what no foreign key can watch."""

from collections.abc import Iterable
from datetime import date

from sqlalchemy import Connection, text

_ORPHANS = {
    "crop_embedding without crop": "SELECT count(*) FROM crop_embedding e WHERE NOT EXISTS "
    "(SELECT FROM crop c WHERE c.id = e.crop_id)",
    "prototype without identity": "SELECT count(*) FROM prototype p WHERE NOT EXISTS "
    "(SELECT FROM identity i WHERE i.id = p.identity_id)",
    "crop_embedding of another day": "SELECT count(*) FROM crop_embedding e JOIN crop c ON c.id = e.crop_id "
    "WHERE e.day <> (c.captured_at AT TIME ZONE 'UTC')::date",
    "prototype of another day": "SELECT count(*) FROM prototype p JOIN identity i ON i.id = p.identity_id "
    "WHERE p.day <> (i.last_seen AT TIME ZONE 'UTC')::date",
    "partition without model": r"""
        SELECT count(*) FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
        WHERE h.inhparent IN ('crop_embedding'::regclass, 'prototype'::regclass)
          AND NOT EXISTS (SELECT FROM model m WHERE c.relname ~ ('_m' || m.id || '$'))""",
}


def ensure_leaves(connection: Connection, family: str, model_id: int, days: Iterable[date]) -> None:
    """Makes the leaves of `family` ('crop_embedding' or 'prototype') for `model_id` and these UTC days.

    Call it in a short transaction of its own before the one that fills them: a new leaf's foreign keys wait for those
    who are just writing crops or identities, so two writers that made leaves themselves could wait for each other.
    """
    wanted = sorted(set(days))
    if wanted:
        connection.execute(
            text("SELECT ensure_leaf(:family, :model, day) FROM unnest(CAST(:days AS date[])) AS day ORDER BY day"),
            {"family": family, "model": model_id, "days": wanted},
        )


def find_orphans(connection: Connection) -> dict[str, int]:
    """Counts of rows that no foreign key can refuse, by what is wrong with them; all 0 in a sound database."""
    return {what: connection.scalar(text(sql)) or 0 for what, sql in _ORPHANS.items()}
