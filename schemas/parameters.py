"""What a flow run takes: ids, codes and times, never pictures, vectors, paths or addresses."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from schemas.levels import Code
from schemas.settings import Frozen


def _reason(text: str) -> str:
    text = text.replace("\x00", "").strip()
    if not text:
        raise ValueError("a reason is needed: it is written to the audit before the search runs")
    return text


Reason = Annotated[str, Field(max_length=2000), AfterValidator(_reason)]


class Period(Frozen):
    from_time: AwareDatetime | None = Field(
        None, title="From", description="start, with zone; empty: from the first crop"
    )
    to_time: AwareDatetime | None = Field(None, title="To", description="end, with zone; empty: to the last crop")

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_time and self.to_time and self.from_time >= self.to_time:
            raise ValueError("the period ends before it starts")
        return self


class ResolveParameters(Period):
    """A resolve of one unit and everything below it."""

    unit: Code = Field(title="Unit", description="code such as d1 or d1/s1")


class SearchParameters(Period):
    """A search below one unit. Either the key of a stored crop, or the id of an uploaded probe."""

    unit: Code = Field(title="Within unit", description="code such as d1 or d1/s1")
    crop_key: str | None = Field(None, title="Crop key", pattern=r"^[0-9a-f]{64}$", description="64 hex digits")
    probe_id: UUID | None = Field(None, title="Probe id", description="of a picture uploaded before")
    reason: Reason = Field(title="Reason", description="why this person is searched for, and by which order")
    operator: str = Field(title="Operator", min_length=1, max_length=200, description="who asks")
    top: int = Field(10, title="Hits", ge=1, le=200)

    @model_validator(mode="after")
    def _one_probe(self) -> Self:
        if (self.crop_key is None) == (self.probe_id is None):
            raise ValueError("give either a crop key or a probe id")
        return self


class CropEvidence(Frozen):
    key: str
    camera: str
    time: datetime | None


class SearchHit(Frozen):
    rank: int
    identity: UUID
    unit: str
    distance: float
    probability: float | None
    first_seen: datetime | None
    last_seen: datetime | None
    crops: tuple[CropEvidence, ...]
