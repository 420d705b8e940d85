"""What forms say, read."""

from datetime import datetime
from zoneinfo import ZoneInfo

from schemas.errors import InputError


def moment(text: str, zone: ZoneInfo) -> datetime:
    """A time of a form, which is the city's. Raises InputError."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone)
    except ValueError:
        raise InputError(f"{text[:40]!r} is no time; write it as 2026-01-01T08:00") from None
