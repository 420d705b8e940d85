"""What the webhook tells of standing searches: that one raised a hit, and where the console shows it.

    {"id": "5f0c...", "event": "standing.hit", "standing": "3f2a...", "lead": "81c0...",
     "at": "2026-01-01T12:00:00+00:00", "address": "/leads/81c0..."}

Nothing about who was seen, or where; the address is the console's, and shows it to whoever may see it. A hit that is
erased is told no more.
"""

from datetime import datetime, timedelta

from sqlalchemy import text

from pipeline.store import Store
from pipeline.webhook.telling import Message

#: What is older was told by nobody in time, and is not told any more.
TELL_WITHIN = timedelta(days=7)

_UNTOLD = text("SELECT id, standing, lead, made_at FROM untold_standing(:since)")
_TOLD = text("SELECT tell_standing(:id)")


def untold_hits(store: Store, now: datetime) -> list[Message]:
    """The messages that wait, the oldest first."""
    with store.begin() as connection:
        rows = connection.execute(_UNTOLD, {"since": now - TELL_WITHIN}).all()
    return [
        Message(
            f"hit {row.id}",
            {
                "id": str(row.id),
                "event": "standing.hit",
                "standing": str(row.standing),
                "lead": row.lead and str(row.lead),  # none in an open home
                "at": row.made_at.isoformat(),
                "address": f"/leads/{row.lead}" if row.lead else f"/standing/{row.standing}",
            },
            (_TOLD, {"id": row.id}),
        )
        for row in rows
    ]
