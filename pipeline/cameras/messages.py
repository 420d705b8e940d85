"""What the webhook tells of cameras: when one goes down, and when it comes up.

The outages in the database are the queue.

    {"id": "17-down", "event": "camera.down", "camera": "d1/s1/b1/c1", "at": "2026-01-01T12:00:00+00:00",
     "reason": "does not answer"}

An "up" has `down_at` too. A message holds no address of a camera and nothing about people.
"""

from datetime import datetime, timedelta

from sqlalchemy import text

from pipeline.store import Store
from pipeline.webhook.telling import Message

#: What is older was told by nobody in time, and is not told any more.
TELL_WITHIN = timedelta(days=1)

_UNTOLD = text(
    "SELECT id, camera, down_at, up_at, reason, down_told_at, "
    "down_told_at IS NULL AND down_at > :since AS tell_down, up_told_at IS NULL AND up_at > :since AS tell_up "
    "FROM camera_outage WHERE (down_told_at IS NULL AND down_at > :since) "
    "OR (up_told_at IS NULL AND up_at > :since) ORDER BY id"
)
_DOWN_TOLD = text("UPDATE camera_outage SET down_told_at = now() WHERE id = :id")
_UP_TOLD = text("UPDATE camera_outage SET up_told_at = now() WHERE id = :id")


def untold_outages(store: Store, now: datetime) -> list[Message]:
    """The messages that wait, each camera's "down" before its "up"."""
    with store.begin() as connection:
        rows = connection.execute(_UNTOLD, {"since": now - TELL_WITHIN}).all()
    messages = []
    for row in rows:
        of_camera, group, one = {"camera": row.camera, "reason": row.reason}, f"outage {row.id}", {"id": row.id}
        if row.tell_down:
            down = {"id": f"{row.id}-down", "event": "camera.down", "at": row.down_at.isoformat()}
            messages.append(Message(group, down | of_camera, (_DOWN_TOLD, one)))
        if row.tell_up:
            up = {"id": f"{row.id}-up", "event": "camera.up", "at": row.up_at.isoformat()}
            messages.append(Message(group, up | {"down_at": row.down_at.isoformat()} | of_camera, (_UP_TOLD, one)))
    return messages
