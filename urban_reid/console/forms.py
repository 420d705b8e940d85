"""What forms say, read."""

from datetime import datetime
from zoneinfo import ZoneInfo

from fastapi import UploadFile

from schemas.errors import InputError

#: Largest picture that a form sends, bytes.
LARGEST_UPLOAD = 20_000_000


def sent_picture(upload: UploadFile | None) -> bytes:
    """The picture of a form; empty where none was sent. Raises InputError for one larger than LARGEST_UPLOAD."""
    data = b"" if upload is None else upload.file.read(LARGEST_UPLOAD + 1)
    if len(data) > LARGEST_UPLOAD:
        raise InputError(f"the picture is larger than {LARGEST_UPLOAD // 1_000_000} MB")
    return data


def moment(text: str, zone: ZoneInfo) -> datetime:
    """A time of a form, which is the city's. Raises InputError."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone)
    except ValueError:
        raise InputError(f"{text[:40]!r} is no time; write it as 2026-01-01T08:00") from None
