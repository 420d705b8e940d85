"""Which windows are to be looked at. A mark is cleared only if no other came meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class Watermark:
    dirty_from: datetime
    version: int


def read(connection: Connection, unit: str) -> Watermark | None:
    """The unit's mark; None when nothing is pending."""
    row = connection.execute(
        text("SELECT dirty_from, version FROM watermark WHERE unit = :unit AND dirty_from IS NOT NULL"), {"unit": unit}
    ).one_or_none()
    return None if row is None else Watermark(row.dirty_from, row.version)


def mark(connection: Connection, unit: str, dirty_from: datetime) -> None:
    """Says that the unit's windows from `dirty_from` on may have changed."""
    mark_all(connection, {unit: dirty_from})


def mark_all(connection: Connection, dirty_from: Mapping[str, datetime]) -> None:
    """The same of several units, in the order of their codes, so that two writers wait for each other."""
    connection.execute(
        text(
            "INSERT INTO watermark (unit, dirty_from, version) SELECT unit, at, 1 "
            "FROM unnest(CAST(:units AS text[]), CAST(:times AS timestamptz[])) AS dirty (unit, at) ORDER BY unit "
            "ON CONFLICT (unit) DO UPDATE "
            "SET dirty_from = least(watermark.dirty_from, excluded.dirty_from), version = watermark.version + 1"
        ),
        {"units": list(dirty_from), "times": list(dirty_from.values())},
    )


def settle(connection: Connection, unit: str, seen: Watermark, remaining: datetime | None) -> bool:
    """After a resolve: moves the mark to the first window not looked at, or clears it.

    False when a new mark came since `seen`; then the unit has to be looked at once more.
    """
    done = connection.execute(
        text("UPDATE watermark SET dirty_from = :remaining WHERE unit = :unit AND version = :version"),
        {"unit": unit, "remaining": remaining, "version": seen.version},
    )
    return bool(done.rowcount)


def mark_everything(connection: Connection) -> None:
    """After another model or calibration came into use: every camera's whole history is to be looked at again."""
    connection.execute(
        text(
            "INSERT INTO watermark (unit, dirty_from, version) SELECT camera, min(captured_at), 1 FROM crop "
            "GROUP BY camera ON CONFLICT (unit) DO UPDATE SET dirty_from = excluded.dirty_from, "
            "version = watermark.version + 1"
        )
    )
    connection.execute(
        text(
            "INSERT INTO watermark (unit, dirty_from, version) SELECT unit, min(window_start), 1 FROM run "
            "WHERE superseded_at IS NULL AND level <> 'camera' GROUP BY unit ON CONFLICT (unit) DO UPDATE "
            "SET dirty_from = least(watermark.dirty_from, excluded.dirty_from), version = watermark.version + 1"
        )
    )
