"""From words on the command line to checked values; what cannot be meant is a UsageError with its option."""

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


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Operator = Annotated[
    str | None,
    typer.Option(metavar="USER", help="Who asks, for the audit; URBAN_REID_OPERATOR unless given."),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")]
FromTime = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Start, with zone: 2026-01-01T08:00:00Z.")]
ToTime = Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, with zone.")]


def moment(text: str | None) -> datetime | None:
    """An optional time. Raises InputError."""
    return None if text is None else parse_time(text)


def checked(model: type[Model], **values: Any) -> Model:
    """`model` of these values. Raises UsageError, which names the option of the wrong one."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        said = first["msg"].removeprefix("Value error, ")
        where = f"--{field.removesuffix('_time').replace('_', '-')}: " if field else ""
        raise UsageError(f"{where}{said}") from None


def model_at(model: str) -> Path:
    """Where a model lies: `model` itself where it is a path, else the folder of the registered model of that name.

    Raises InputError; without making or starting a database for what is no name, and in a home that has none.
    """
    from pipeline.registry import find_model
    from pipeline.store import Store, embedded
    from pipeline.store.embedded_home import home_errors

    try:
        if Path(model).exists():
            return Path(model)
    except OSError as error:  # such as a name that no file can have
        raise InputError(f"{model[:80]}...: {error.strerror}") from None
    if "/" in model:
        raise InputError(f"{model[:200]}: no such file or model directory")
    ours = settings()
    with home_errors(ours.home):
        has_database = ours.database_url is not None or embedded.exists(ours.home)
    if not has_database:
        raise InputError(
            f"{model[:80]!r} is no file or folder, and no model is registered in {ours.home}, which has no database "
            "yet; `urban-reid models register NAME FILE` takes one"
        )
    with Store.open(ours, "urban-reid") as store, store.begin() as connection:
        return find_model(connection, model).directory(ours)


class Color(StrEnum):
    RGB = "rgb"
    BGR = "bgr"


ColorOrder = Annotated[Color | None, typer.Option("--color", help="Order of a foreign model's channels.")]
ValueRange = Annotated[int | None, typer.Option("--range", metavar="255|1", help="Its pixels lie in 0..255 or 0..1.")]
Mean = Annotated[str | None, typer.Option("--mean", metavar="a,b,c", help="Taken off each channel.")]
Std = Annotated[str | None, typer.Option("--std", metavar="a,b,c", help="Each channel is divided by it.")]
Size = Annotated[
    str | None, typer.Option("--size", metavar="HEIGHTxWIDTH", help="Its input, if the file leaves that open: 256x128.")
]


def input_convention(
    color: Color | None, value_range: int | None, mean: str | None, std: str | None, size: str | None
) -> InputConvention | None:
    """What was said of the input of an .xml or .onnx file, None if nothing. Raises UsageError."""
    height, width = _size(size)
    given = {
        "color": color,
        "range": value_range,
        "mean": _three("mean", mean),
        "std": _three("std", std),
        "height": height,
        "width": width,
    }
    said = {field: value for field, value in given.items() if value is not None}
    return checked(InputConvention, **said) if said else None


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
