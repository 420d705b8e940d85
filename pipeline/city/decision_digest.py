"""The decision digest: one hash over all decisions and groups, equal wherever the same embeddings were resolved."""

import hashlib

from sqlalchemy import Connection, text

_UNITS = "(:unit = '' OR r.unit = :unit OR starts_with(r.unit, :unit || '/'))"

_ROW_HASHES = text(
    "SELECT d.row_hash FROM match_decision d JOIN run r ON r.id = d.run_id "
    f"WHERE r.superseded_at IS NULL AND {_UNITS} "
    f"UNION ALL SELECT r.row_hash FROM identity_now r WHERE {_UNITS} "
    "UNION ALL SELECT g.row_hash FROM erased_group g JOIN run r ON r.id = g.run_id "
    f"WHERE r.superseded_at IS NULL AND {_UNITS} ORDER BY row_hash"
)


def decision_digest(connection: Connection, unit: str | None = None) -> str:
    """SHA-256 (hex) over the sorted row hashes of the current decisions and groups of a unit, or of the whole city.

    A unit's include those of everything below it. `schemas.keys` says what a row hash covers. Rows keep their hash when
    their keys are erased, so an erasure does not change the digest.
    """
    digest = hashlib.sha256()
    for row in connection.execution_options(yield_per=10_000).execute(_ROW_HASHES, {"unit": unit or ""}):
        digest.update(row.row_hash)
    return digest.hexdigest()
