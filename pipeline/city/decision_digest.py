"""The decision digest: one hash over all decisions and groups, equal wherever the same embeddings were resolved."""

import hashlib

from sqlalchemy import Connection, text

_UNITS = "(:unit = '' OR r.unit = :unit OR starts_with(r.unit, :unit || '/'))"

_DECISIONS = text(
    "SELECT r.unit, r.level, r.window_start, d.verdict, d.left_key, d.right_key "
    f"FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL AND {_UNITS} "
    'ORDER BY r.unit COLLATE "C", r.window_start, d.left_key, d.right_key'
)

_GROUPS = text(
    "SELECT r.unit, r.level, string_agg(t.key, ''::bytea ORDER BY t.key) AS tracklets FROM identity_now r "
    f"CROSS JOIN unnest(r.tracklets) AS below(id) JOIN identity t ON t.id = below.id WHERE {_UNITS} "
    'GROUP BY r.unit, r.level, r.id ORDER BY r.unit COLLATE "C", 3'
)


def decision_digest(connection: Connection, unit: str | None = None) -> str:
    """SHA-256 (hex) over the current decisions and groups of `unit` and everything below it, or of the whole city.

    It covers level, window, verdict and the keys of both sides of each decision, and each group's sorted tracklet keys.
    It covers no run ids, persistent ids, clock times or floats.
    """
    digest = hashlib.sha256()
    at = {"unit": unit or ""}
    for row in connection.execution_options(yield_per=10_000).execute(_DECISIONS, at):
        window = f"{row.unit}|{row.level}|{row.window_start.timestamp():.0f}|{row.verdict}|"
        digest.update(b"decision|" + window.encode() + bytes(row.left_key) + bytes(row.right_key))
    for row in connection.execution_options(yield_per=10_000).execute(_GROUPS, at):
        digest.update(b"group|" + f"{row.unit}|{row.level}|".encode() + bytes(row.tracklets))
    return digest.hexdigest()
