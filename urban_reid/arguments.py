"""From words on the command line to checked values; what cannot be meant is a UsageError with its option."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from schemas.errors import UsageError
from schemas.times import parse_time

Model = TypeVar("Model", bound=BaseModel)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
FromTime = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Start, with zone: 2026-01-01T08:00:00Z.")]
ToTime = Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, with zone.")]


def moment(text: str | None) -> datetime | None:
    """An optional time. Raises InputError."""
    return None if text is None else parse_time(text)


def checked(model: type[Model], options: dict[str, str], **values: Any) -> Model:
    """`model` of these values. `options` names the option of a field where it is another word. Raises UsageError."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        said = first["msg"].removeprefix("Value error, ")
        where = f"--{options.get(field, field)}: " if field else ""
        raise UsageError(f"{where}{said}") from None
