"""Watermarks: from which window on each unit has to be resolved. A new mark is never lost to an older one's end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from schemas.times import window_start


@dataclass(frozen=True)
class Watermark:
    """`dirty_from`: start of the first window to resolve. `version` grows with each mark of the unit."""

    dirty_from: datetime
    version: int


def read(connection: Connection, unit: str) -> Watermark | None:
    """The unit's mark; None if nothing is pending."""
    row = connection.execute(
        text("SELECT dirty_from, version FROM watermark WHERE unit = :unit AND dirty_from IS NOT NULL"), {"unit": unit}
    ).one_or_none()
    return None if row is None else Watermark(row.dirty_from, row.version)


def any_pending(connection: Connection, units: Sequence[str]) -> bool:
    """Whether one of the units has a mark."""
    query = text("SELECT EXISTS (SELECT FROM watermark WHERE unit = ANY(:units) AND dirty_from IS NOT NULL)")
    return bool(connection.execute(query, {"units": list(units)}).scalar_one())


def mark(connection: Connection, unit: str, dirty_from: datetime) -> None:
    """Marks the unit's windows from `dirty_from` on as possibly changed."""
    mark_all(connection, {unit: dirty_from})


def mark_all(connection: Connection, dirty_from: Mapping[str, datetime]) -> None:
    """The same for several units, in the order of their codes, so that two writers cannot deadlock."""
    connection.execute(
        text(
            "INSERT INTO watermark (unit, dirty_from, version) SELECT unit, at, 1 "
            "FROM unnest(CAST(:units AS text[]), CAST(:times AS timestamptz[])) AS dirty (unit, at) ORDER BY unit "
            "ON CONFLICT (unit) DO UPDATE "
            "SET dirty_from = least(watermark.dirty_from, excluded.dirty_from), version = watermark.version + 1"
        ),
        {"units": list(dirty_from), "times": list(dirty_from.values())},
    )


def mark_crops(connection: Connection, crops: Iterable[tuple[str, datetime]], window_s: int) -> None:
    """Marks each camera's windows from its earliest of these crops (camera, time of capture) on."""
    first: dict[str, datetime] = {}
    for camera, captured_at in crops:
        first[camera] = min(captured_at, first.get(camera, captured_at))
    mark_all(connection, {camera: window_start(moment, window_s) for camera, moment in first.items()})


_SETTLE = text(
    "UPDATE watermark w SET dirty_from = :remaining FROM urban_unit u "
    "WHERE w.unit = :unit AND w.version = :version AND u.code = w.unit AND u.geometry = :geometry"
)


def settle(connection: Connection, unit: str, seen: Watermark, geometry: bytes, remaining: datetime | None) -> bool:
    """After a resolve: moves the mark to `remaining`, the first window not resolved, or clears it for None.

    Returns False, and changes nothing, if the unit was marked again since `seen`, or has another geometry than the one
    with this digest; it has to be resolved once more.
    """
    at = {"unit": unit, "version": seen.version, "geometry": geometry, "remaining": remaining}
    return bool(connection.execute(_SETTLE, at).rowcount)


def mark_everything(connection: Connection) -> None:
    """Marks the whole history of every unit, after another model or calibration came into use."""
    connection.execute(
        text(
            "INSERT INTO watermark (unit, dirty_from, version) SELECT camera, min(captured_at), 1 FROM crop "
            "WHERE withdrawn_at IS NULL GROUP BY camera "
            "ON CONFLICT (unit) DO UPDATE SET dirty_from = excluded.dirty_from, "
            "version = watermark.version + 1"
        )
    )
    connection.execute(
        text(
            "INSERT INTO watermark (unit, dirty_from, version) SELECT unit, min(window_start), 1 FROM run "
            "WHERE superseded_at IS NULL AND level <> 'camera' GROUP BY unit ORDER BY unit "
            "ON CONFLICT (unit) DO UPDATE "
            "SET dirty_from = least(watermark.dirty_from, excluded.dirty_from), version = watermark.version + 1"
        )
    )


def mark_history(connection: Connection, since: Mapping[str, datetime]) -> None:
    """Marks those windows of these units that have a run and end after a moment, each unit's own."""
    windows = connection.execute(
        text(
            "SELECT unit, min(window_start) AS first FROM run "
            "JOIN unnest(CAST(:units AS text[]), CAST(:moments AS timestamptz[])) AS since (unit, moment) USING (unit) "
            "WHERE superseded_at IS NULL AND window_end > moment GROUP BY unit"
        ),
        {"units": list(since), "moments": list(since.values())},
    )
    mark_all(connection, {row.unit: row.first for row in windows})
