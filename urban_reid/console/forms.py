"""What forms say, read."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fastapi import UploadFile
from pydantic import BaseModel, ValidationError

from schemas.errors import InputError
from urban_reid.console.texts import N_, _, told

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
    "expires": N_("Until when it holds"),
    "camera": N_("Code"),
    "address": N_("Address"),
    "secret": N_("User and password"),
    "upload": N_("Picture"),
    "pictures": N_("Picture"),
    "more": N_("The person"),
    "unlike": N_("Not these"),
    "attributes": N_("What the person wears and carries"),
    "left": N_("Left edge, meters east"),
    "bottom": N_("Lower edge, meters north"),
    "width_m": N_("Width, meters"),
    "bar": N_("Raise a hit from"),
}

#: What pages say of a field instead of pydantic, by the kind of its fault.
FAULTS = {
    "value_error": "",  # in words of our own already
    "missing": N_("is missing"),
    "string_too_long": N_("is longer than %(max_length)s characters"),
    "string_too_short": N_("is shorter than %(min_length)s characters"),
    "too_long": N_("more than %(max_length)s were chosen"),
    "too_short": N_("fewer than %(min_length)s were chosen"),
    "string_pattern_mismatch": N_("is not written as it has to be"),
    "time_parsing": N_("is no time of day; write it as 08:00"),
    "greater_than_equal": N_("is less than %(ge)s"),
    "less_than_equal": N_("is more than %(le)s"),
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
        raise InputError(fault(error.errors(include_url=False)[0])) from None


def fault(found: Mapping[str, Any]) -> str:
    """What is wrong, by an error of pydantic or of a form that could not be read, with the field as pages name it."""
    place = [str(part) for part in found["loc"] if part not in ("body", "query", "path")]
    wrong = told(found["msg"].removeprefix("Value error, "))
    if FAULTS.get(found["type"]):
        wrong = _(FAULTS[found["type"]], **{name: str(value) for name, value in found.get("ctx", {}).items()})
    return f"{label(place[0])}: {wrong}" if place else wrong


def label(field: str) -> str:
    """What pages call a field of a form."""
    return _(LABELS[field]) if field in LABELS else field
