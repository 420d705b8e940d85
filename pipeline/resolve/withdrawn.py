"""Withdrawn crops leave no vectors: superseded versions that were made of them lose their prototypes."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

_FORGET = text("""
    DELETE FROM prototype p USING identity i, run r
    WHERE p.identity_id = i.id AND p.day = (i.last_seen AT TIME ZONE 'UTC')::date AND r.id = i.run_id
      AND r.unit = :unit AND r.window_start = ANY(:windows) AND r.superseded_at IS NOT NULL AND NOT i.retired
      AND EXISTS (SELECT FROM identity_member m JOIN crop c ON c.id = m.crop_id
                  WHERE m.identity_id = ANY(i.tracklets) AND c.withdrawn_at IS NOT NULL)""")


def forget_withdrawn(connection: Connection, unit: str, windows: Sequence[datetime]) -> None:
    """Deletes the prototypes of the unit's superseded versions in these windows that hold withdrawn crops."""
    if windows and connection.scalar(text("SELECT EXISTS (SELECT FROM crop WHERE withdrawn_at IS NOT NULL)")):
        connection.execute(_FORGET, {"unit": unit, "windows": list(windows)})
