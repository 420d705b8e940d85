"""What there is to say of each camera that is taken in: its feed, how it fares, and since when."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, text

from pipeline.cameras.hosts import read_holders
from pipeline.cameras.rows import read_feeds, read_health
from schemas.feeds import Feed, Health
from schemas.text import said

#: Health that is older says nothing about now.
STALE_AFTER = timedelta(seconds=60)

Seen = Literal["up", "starting", "down", "ended", "refused", "paused", "unknown"]
#: A camera's state in words.
STATES: dict[Seen, str] = {
    "up": said("up"),
    "starting": said("starting"),
    "down": said("down"),
    "ended": said("read to its end"),
    "refused": said("refused"),
    "paused": said("paused"),
    "unknown": said("not running"),
}
#: What the cameras' process says of a camera that has been starting for LATE_AFTER_S.
LATE_AFTER_S = 60.0
LATE = said("nothing looks at it after a minute")


@dataclass(frozen=True)
class Overview:
    """`state` unknown: nothing looks at the camera now. `since`: None where it is not known.

    `host`: who looks at it, where several hosts may; None: nobody, or there is one machine.
    """

    feed: Feed
    state: Seen
    since: datetime | None
    health: Health | None
    host: str | None = None


_SINCE = text(
    "SELECT DISTINCT ON (camera) camera, coalesce(up_at, down_at) AS since FROM camera_outage ORDER BY camera, id DESC"
)


def overview(connection: Connection, now: datetime) -> Sequence[Overview]:
    """All cameras that are taken in, in the order of their codes."""
    health = read_health(connection)
    turned = {row.camera: row.since for row in connection.execute(_SINCE)}
    hosts = read_holders(connection)
    found = [_overview(feed, health.get(feed.camera), turned.get(feed.camera), now) for feed in read_feeds(connection)]
    return [replace(one, host=hosts.get(one.feed.camera)) for one in found]


@dataclass(frozen=True)
class Refused:
    """How many recorded files of a camera were refused, and of the last of them its path and why."""

    many: int
    path: str
    reason: str


def refused_files(connection: Connection) -> dict[str, Refused]:
    """The refused files of each camera that has any, by code."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (f.camera) f.camera, count(*) OVER (PARTITION BY f.camera) AS many, f.path, f.note "
            "FROM camera_file f JOIN camera_feed USING (camera) WHERE f.state = 'refused' ORDER BY f.camera, f.at DESC"
        )
    )
    return {row.camera: Refused(row.many, row.path, row.note) for row in rows}


def _overview(feed: Feed, health: Health | None, turned: datetime | None, now: datetime) -> Overview:
    if feed.paused:
        return Overview(feed, "paused", None, health)
    if health is None:
        return Overview(feed, "unknown", None, None)
    if health.state in ("ended", "refused"):  # for good: nothing looks at it any more
        return Overview(feed, health.state, None, health)
    if now - health.at > STALE_AFTER:
        return Overview(feed, "unknown", health.at, health)
    return Overview(feed, health.state, turned if health.state in ("up", "down") else None, health)
