"""A line of a manifest, a crop ready to be stored, and the result of an ingest."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat

from schemas.errors import InputError
from schemas.levels import Code
from schemas.settings import Frozen
from schemas.text import Line
from schemas.times import parse_time


def _with_zone(text: str) -> str:
    try:
        parse_time(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


class ManifestLine(Frozen):
    path: str = Field(
        min_length=1, max_length=4096, description="relative to the manifest, or a URI below an allowed root"
    )
    camera: Code
    time: Annotated[str, AfterValidator(_with_zone)]
    track: Line | None = Field(None, max_length=200, description="the source's own id of the passage")
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = Field(
        None, description="x, y, width, height in the frame, pixels"
    )
    truth: Line | None = Field(None, max_length=200, description="the person, for scoring only")


class NewCrop(Frozen):
    """A crop whose picture lies in the crop store, ready to be written."""

    name: str = Field(description="where it comes from, for messages")
    key: bytes
    camera: str
    captured_at: datetime
    timed: bool
    source: str
    track: str | None
    box: tuple[float, float, float, float] | None
    picture: bytes = Field(description="SHA-256 of the encoded picture; its name in the crop store")
    width_px: int
    height_px: int
    quality: float = Field(ge=0, le=1)
    truth: str | None = None


class IngestReport(Frozen):
    """Counts of pictures read, crops written and crops that were stored already.

    batch: the id of the ingest's batch; None if it found nothing.
    skipped: one line for each of the first hundred pictures left out.
    static_count: crops left out because they show things in which nothing moves, such as a chair; not in read.
    notes: what to look at although nothing was left out, such as a camera clock that was set back.
    """

    batch: int | None = None
    read: int = 0
    written: int = 0
    already_there: int = 0
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
    static_count: int = 0
    notes: tuple[str, ...] = ()
