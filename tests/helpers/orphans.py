"""Rows that break a rule which no foreign key can hold, because no foreign key may point at a partition."""

from sqlalchemy import Connection, text

_ORPHANS = {
    "prototype without identity": "SELECT count(*) FROM prototype p WHERE NOT EXISTS "
    "(SELECT FROM identity i WHERE i.id = p.identity_id)",
    "crop_embedding without crop of its day": "SELECT count(*) FROM crop_embedding e WHERE NOT EXISTS "
    "(SELECT FROM crop c WHERE c.id = e.crop_id AND (c.captured_at AT TIME ZONE 'UTC')::date = e.day)",
    "prototype of another day": "SELECT count(*) FROM prototype p JOIN identity i ON i.id = p.identity_id "
    "WHERE p.day <> (i.last_seen AT TIME ZONE 'UTC')::date",
    "partition without model": r"""
        SELECT count(*) FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
        WHERE h.inhparent IN ('crop_embedding'::regclass, 'prototype'::regclass)
          AND NOT EXISTS (SELECT FROM model m WHERE c.relname ~ ('_m' || m.id || '$'))""",
}


def count_orphans(connection: Connection) -> dict[str, int]:
    """How many rows break each rule; all 0 in a sound database."""
    return {rule: connection.scalar(text(sql)) or 0 for rule, sql in _ORPHANS.items()}
