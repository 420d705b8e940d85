"""What forms say, read."""

from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fastapi import UploadFile
from pydantic import BaseModel, ValidationError

from schemas.errors import InputError
from urban_reid.console.texts import N_

Model = TypeVar("Model", bound=BaseModel)

#: What pages call a field of parameters that somebody may write wrongly.
LABELS = {
    "reason": N_("Why"),
    "name": N_("Name"),
    "purpose": N_("For what"),
    "legal_basis": N_("Legal basis"),
    "sought": N_("Who is looked for"),
    "units": N_("Where"),
    "unit": N_("Where"),
    "from_time": N_("From"),
    "to_time": N_("To"),
    "expires_at": N_("Until when it holds"),
    "day_from": N_("Hours of the day, from"),
    "day_to": N_("to"),
}

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


def checked(model: type[Model], **values: Any) -> Model:
    """A `model` with these values. Raises InputError that names the field of the first wrong one as pages do."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, wrong = str(first["loc"][0]) if first["loc"] else "", first["msg"].removeprefix("Value error, ")
        label = LABELS.get(field, field)
        raise InputError(f"{label}: {wrong}" if label else wrong) from None
