"""Rows of cameras: feeds, health, and outages. Whoever writes them gives the transaction."""

import json
from datetime import datetime

from sqlalchemy import Connection, text

from schemas.feeds import Feed, Health, Outage

_FEED = [name for name in Feed.model_fields if name != "camera"]
_HEALTH = [name for name in Health.model_fields if name != "camera"]
_VALUE = {"masks": "CAST(:masks AS jsonb)"}


def _upsert(table: str, columns: list[str]) -> str:
    return (
        f"INSERT INTO {table} (camera, {', '.join(columns)}) "
        f"VALUES (:camera, {', '.join(_VALUE.get(name, f':{name}') for name in columns)}) "
        f"ON CONFLICT (camera) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in columns)}"
    )


_WRITE_FEED = text(_upsert("camera_feed", _FEED))
_WRITE_HEALTH = text(_upsert("camera_health", _HEALTH))


def read_feeds(connection: Connection) -> list[Feed]:
    """All feeds, the paused ones too, in the order of the cameras' codes."""
    rows = connection.execute(text(f"SELECT camera, {', '.join(_FEED)} FROM camera_feed"))
    return sorted((Feed.model_validate(dict(row._mapping)) for row in rows), key=lambda feed: feed.camera)


def write_feed(connection: Connection, feed: Feed) -> None:
    """Makes this the camera's feed. Raises StoreError if the city has no such camera."""
    values = feed.model_dump()
    region = None if feed.region is None else list(feed.region)
    connection.execute(_WRITE_FEED, values | {"masks": json.dumps(feed.masks), "region": region})


def remove_feed(connection: Connection, camera: str) -> None:
    """Removes a camera's feed and health. Its outages stay: they say when it was blind. One that lasts ends untold."""
    connection.execute(
        text(
            "UPDATE camera_outage SET up_at = greatest(now(), down_at), up_told_at = now() "
            "WHERE camera = :camera AND up_at IS NULL"
        ),
        {"camera": camera},
    )
    for table in ("camera_health", "camera_feed"):
        connection.execute(text(f"DELETE FROM {table} WHERE camera = :camera"), {"camera": camera})


def read_health(connection: Connection) -> dict[str, Health]:
    """The health of each camera that has one, by code."""
    rows = connection.execute(text(f"SELECT camera, {', '.join(_HEALTH)} FROM camera_health"))
    return {row.camera: Health.model_validate(dict(row._mapping)) for row in rows}


def write_health(connection: Connection, health: Health) -> None:
    """Replaces the camera's health."""
    connection.execute(_WRITE_HEALTH, health.model_dump())


def remove_health(connection: Connection, camera: str) -> None:
    connection.execute(text("DELETE FROM camera_health WHERE camera = :camera"), {"camera": camera})


def went_down(connection: Connection, camera: str, at: datetime, reason: str) -> bool:
    """Begins an outage at `at`; False, and nothing is written, if the camera is down already.

    `reason`: one line for people, without user and password.
    """
    begun = connection.execute(
        text(
            "INSERT INTO camera_outage (camera, down_at, reason) VALUES (:camera, :at, :reason) "
            "ON CONFLICT (camera) WHERE up_at IS NULL DO NOTHING"
        ),
        {"camera": camera, "at": at, "reason": reason},
    )
    return bool(begun.rowcount)


def came_up(connection: Connection, camera: str, at: datetime) -> bool:
    """Ends the camera's outage at `at`; False, and nothing is written, if it is not down."""
    ended = connection.execute(
        text(  # a clock that was set back ends no outage before it began
            "UPDATE camera_outage SET up_at = greatest(CAST(:at AS timestamptz), down_at) "
            "WHERE camera = :camera AND up_at IS NULL"
        ),
        {"camera": camera, "at": at},
    )
    return bool(ended.rowcount)


def read_outages(
    connection: Connection,
    unit: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    newest: int | None = None,
) -> list[Outage]:
    """Outages at or below `unit` that touch [start, end), None: no bound; the latest first, at most `newest`."""
    rows = connection.execute(
        text(
            "SELECT camera, down_at, up_at, reason FROM camera_outage "
            "WHERE (camera = :unit OR starts_with(camera, :unit || '/')) "
            "AND (CAST(:start AS timestamptz) IS NULL OR coalesce(up_at, 'infinity') > :start) "
            "AND (CAST(:end AS timestamptz) IS NULL OR down_at < :end) "
            'ORDER BY down_at DESC, camera COLLATE "C", id DESC LIMIT :newest'
        ),
        {"unit": unit, "start": start, "end": end, "newest": newest},
    )
    return [Outage(**row._mapping) for row in rows]
