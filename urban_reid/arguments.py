"""Options that several commands share, and checked values of what was typed. An error names its option."""

import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from schemas.cards import InputConvention
from schemas.errors import InputError, UsageError
from schemas.settings import settings
from schemas.times import parse_time

Model = TypeVar("Model", bound=BaseModel)


class TripletDistance(StrEnum):
    TRAINING = "training"
    TEST = "test"


CameraCode = Annotated[str, typer.Argument(metavar="CODE", help="The camera's code, such as d1/s1/b1/c1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Operator = Annotated[
    str | None,
    typer.Option(metavar="USER", help="Who asks; written to the audit. URBAN_REID_OPERATOR unless given."),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="The reason; written to the audit.")]
FromTime = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="Start, with a time zone: 2026-01-01T08:00:00Z.")
]
ToTime = Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, with a time zone.")]
#: What is said of the first digits of an authorization's id where the whole is needed.
WHOLE_ID = "write the whole id of the authorization, 36 characters, as `urban-reid cases show CASE` prints it"


def moment(text: str | None) -> datetime | None:
    """The time that `text` states, in UTC; None for None. Raises InputError."""
    return None if text is None else parse_time(text)


def checked(model: type[Model], **values: Any) -> Model:
    """A `model` with these values. Raises UsageError that names the option of the first wrong one."""
    try:
        return model(**values)
    except ValidationError as error:
        field, message = _first_of(error)
        option = field.removesuffix("_time").removesuffix("_at").replace("_", "-")  # from_time is --from
        raise UsageError(f"--{option}: {message}" if field else message) from None


def checked_arguments(model: type[Model], **values: Any) -> Model:
    """As `checked`, for what stands in a command without an option's name."""
    try:
        return model(**values)
    except ValidationError as error:
        field, message = _first_of(error)
        raise UsageError(f"{field.upper()}: {message}" if field else message) from None


def _first_of(error: ValidationError) -> tuple[str, str]:
    """The field and the message of the first wrong value."""
    first = error.errors(include_url=False)[0]
    return str(first["loc"][0]) if first["loc"] else "", first["msg"].removeprefix("Value error, ")


def model_at(model: str) -> Path:
    """The path of a model: `model` itself if it is a path, else the folder of the registered model of that name.

    Raises InputError. A database is started only if the home has one and `model` can be a registered name.
    """
    from pipeline.registry import find_model
    from pipeline.store import Store
    from pipeline.store.embedded_home import exists, home_errors

    try:
        if Path(model).exists():
            return Path(model)
    except OSError as error:  # such as a name that is too long for a file
        raise InputError(f"{model[:80]}...: {error.strerror}") from None
    if "/" in model:
        raise InputError(f"{model[:200]}: no such file or model directory")
    ours = settings()
    with home_errors(ours.home):
        has_database = ours.database_url is not None or exists(ours.home)
    if not has_database:
        raise InputError(
            f"{model[:80]!r} is not a file or folder, and no model is registered in {ours.home}, which has no database "
            "yet",
            do="`urban-reid models register NAME FILE` registers one",
        )
    with Store.open(ours, "urban-reid") as store, store.begin() as connection:
        return find_model(connection, model).directory(ours)


class Color(StrEnum):
    RGB = "rgb"
    BGR = "bgr"


ColorOrder = Annotated[
    Color | None, typer.Option("--color", help="Channel order of the input of an .xml or .onnx file.")
]
ValueRange = Annotated[
    int | None,
    typer.Option("--range", metavar="255|1", help="Its input values lie in 0..255 or 0..1 before mean and std."),
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="a,b,c", help="Subtracted from its channels.")]
Std = Annotated[str | None, typer.Option("--std", metavar="a,b,c", help="Divides its channels.")]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="HEIGHTxWIDTH", help="Its input size if the file leaves that open: 256x128."),
]


def input_convention(
    color: Color | None, value_range: int | None, mean: str | None, std: str | None, size: str | None
) -> InputConvention | None:
    """The input convention of an .xml or .onnx file; None if none of it was given. Raises UsageError."""
    height, width = _size(size)
    options = {
        "color": color,
        "range": value_range,
        "mean": _three("mean", mean),
        "std": _three("std", std),
        "height": height,
        "width": width,
    }
    given = {field: value for field, value in options.items() if value is not None}
    return checked(InputConvention, **given) if given else None


def _size(text: str | None) -> tuple[int, int] | tuple[None, None]:
    """Height and width. Raises UsageError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if found is None:
        raise UsageError(f"--size {text[:40]!r}: write the height and the width of its input, such as 256x128")
    try:
        given = InputConvention(height=int(found[1]), width=int(found[2]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"--size {text}: {first['loc'][0]}: {first['msg']}") from None
    return given.height, given.width


def _three(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UsageError(f"--{option} {text[:40]!r}: write three numbers, such as 0.485,0.456,0.406")
    return numbers
