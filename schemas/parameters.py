"""Parameters and results of flow runs: ids, codes and times; never pictures, vectors, paths or addresses."""

import re
from datetime import UTC, datetime, time
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, field_validator, model_validator

from schemas.attributes import WantedAttributes
from schemas.calibration import SearchCalibration
from schemas.cards import Baseline
from schemas.errors import InputError
from schemas.feeds import Outage
from schemas.levels import Code, is_within
from schemas.settings import Frozen
from schemas.text import Line, Text, chance, said


def _audit_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\x00", "").strip()
    if not text:
        raise ValueError("may not be blank: it is written to the audit")
    return text


#: Text for the audit, without NUL and without white space around it.
AuditText = Annotated[Text, BeforeValidator(_audit_text)]
#: The same on one line.
AuditLine = Annotated[Line, BeforeValidator(_audit_text)]


def _purpose_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ValueError("write a-z, 0-9 and dashes, 64 at most, such as missing-person")
    return name


class Period(Frozen):
    from_time: AwareDatetime | None = Field(
        None, title="From", description="start, with a time zone; empty: from the first crop"
    )
    to_time: AwareDatetime | None = Field(
        None, title="To", description="end, with a time zone; empty: to the last crop"
    )

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.from_time and self.to_time and self.from_time >= self.to_time:
            raise ValueError("the period ends before it starts")
        return self


class ResolveParameters(Period):
    """A resolve of one unit and everything below it."""

    unit: Code = Field(title="Unit", description="code such as d1 or d1/s1")


CropKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _wanted(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return WantedAttributes.parse(value) if value.strip() else None
    except InputError as error:
        raise ValueError(str(error)) from None


class SearchParameters(Period):
    """A search in one unit: with the key of a stored crop, the id of an uploaded picture, or by attributes alone."""

    unit: Code = Field(title="Unit", description="code such as d1 or d1/s1")
    crop_key: str | None = Field(None, title="Crop key", pattern=r"^[0-9a-f]{64}$", description="64 hex digits")
    probe_id: UUID | None = Field(None, title="Probe id", description="of an uploaded picture")
    more: tuple[CropKey, ...] = Field(
        (), title="More crops", max_length=20, description="keys of further crops of the same person"
    )
    unlike: tuple[CropKey, ...] = Field(
        (), title="Not these", max_length=5, description="keys of crops of other people, whom it is not"
    )
    pictures: tuple[UUID, ...] = Field(
        (), title="More pictures", max_length=5, description="ids of further uploaded pictures of the same person"
    )
    attributes: Annotated[WantedAttributes | None, BeforeValidator(_wanted)] = Field(
        None,
        title="Attributes",
        description="what the person wears and carries, such as red top, long trousers, no hat",
    )
    places: tuple[Code, ...] = Field(
        (), title="Places", max_length=100, description="cameras or other units below the unit; empty: all of it"
    )
    day_from: time | None = Field(None, title="Hours from", description="of the day, in the city's zone, such as 08:00")
    day_to: time | None = Field(None, title="Hours to", description="of the day; earlier than the start: over midnight")
    reason: AuditText = Field(
        title="Reason", max_length=2000, description="why this person is searched for, and on whose order"
    )
    operator: AuditText = Field(title="Operator", max_length=200, description="who asks")
    top: int = Field(10, title="Hits", ge=1, le=200)

    @model_validator(mode="after")
    def _one_probe(self) -> Self:
        if self.crop_key is not None and self.probe_id is not None:
            raise ValueError("give either a crop key or a probe id")
        if not self.has_picture and (self.attributes is None or self.more or self.pictures or self.unlike):
            raise ValueError("give a crop key, a probe id, or attributes alone")
        if len({self.probe_id, *self.pictures}) < 1 + len(self.pictures):
            raise ValueError("one picture is given twice")
        crops = [key for key in (self.crop_key, *self.more, *self.unlike) if key is not None]
        if len(set(crops)) < len(crops):
            raise ValueError("one crop is given twice")
        return self

    @property
    def has_picture(self) -> bool:
        """Whether it begins with a picture, and not with attributes alone."""
        return self.crop_key is not None or self.probe_id is not None

    @model_validator(mode="after")
    def _narrowing(self) -> Self:
        if outside := [code for code in self.places if not is_within(code, self.unit)]:
            raise ValueError(f"{outside[0]} does not lie in {self.unit}")
        if (self.day_from is None) != (self.day_to is None):
            raise ValueError("give both hours of the day, from and to, or neither")
        if self.day_from is not None and self.day_from == self.day_to:
            raise ValueError("the hours of the day end where they begin")
        if any(at is not None and at.tzinfo is not None for at in (self.day_from, self.day_to)):
            raise ValueError("hours of the day are those of the city's zone; leave out the zone")
        return self


class RequestParameters(Frozen):
    """What was asked for before, with the reason, in the city's database."""

    request: UUID = Field(title="Request", description="id of the request, which the command that asked printed")


class TrainParameters(Frozen):
    """A training run: the data it learns from, the reason, and the model it makes."""

    name: str = Field(title="Name", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="of the new model")
    dataset: Line = Field(
        title="Data set",
        max_length=500,
        description="a name of URBAN_REID_DATASETS, rendered:SEED[:PEOPLE], confirmed: identities of this city that "
        "operators confirmed, or reviewed: passages of it that reviewers answered about; several joined by ' + ', of "
        "which the first is evaluated on",
    )
    reason: AuditText = Field(
        title="Reason", max_length=2000, description="why these pictures may be used for training"
    )
    operator: AuditText = Field(title="Operator", max_length=200, description="who asks for the training")
    start_from: Line | None = Field(
        None, title="Start from", max_length=64, description="a registered model; empty: fresh weights"
    )
    architecture: Line = Field(
        "resnet50", title="Architecture", max_length=200, description="of a model with fresh weights"
    )
    baseline: Baseline = Field("bagtricks", title="Baseline", description="of a model with fresh weights")
    pretrained: bool = Field(False, title="Pretrained", description="fresh weights start from ImageNet's")
    height: int = Field(256, title="Height", ge=16, le=2048, description="input of a model with fresh weights, pixels")
    width: int = Field(128, title="Width", ge=8, le=2048, description="input of a model with fresh weights, pixels")
    strategy: Literal["plain", "joint", "separate"] = Field("joint", title="Strategy")
    transform: Literal["sub", "sub_squ", "sub_abs"] = Field(
        "sub_abs", title="Transform", description="of the diff attention module"
    )
    reduction: int = Field(4, title="Reduction", ge=1, le=1024, description="r of the diff attention module")
    triplet_distance: Literal["training", "test"] = Field(
        "test", title="Triplet distance", description="training: the paper's; test: the one the model is evaluated by"
    )
    epochs: int | None = Field(None, title="Epochs", ge=1, le=1000, description="empty: the paper's")
    learning_rate: float | None = Field(None, title="Learning rate", gt=0, le=10, description="empty: the paper's")
    identities_per_batch: int = Field(16, title="P", ge=2, le=1024, description="identities in a batch")
    pictures_per_identity: int = Field(4, title="K", ge=2, le=1024, description="pictures of each identity in a batch")
    seed: int = Field(0, title="Seed", ge=0)


class ApprovalParameters(Frozen):
    """Who approves something, and why."""

    operator: AuditText = Field(title="Operator", max_length=200, description="who approves it")
    reason: AuditText = Field(title="Reason", max_length=2000, description="why")
    force: bool = Field(
        False, title="Force", description="even if the figures or a missing calibration advise against it"
    )


class CaseParameters(Frozen):
    """A new case."""

    name: AuditLine = Field(title="Name", max_length=200, description="a name that no other case has")


class PurposeParameters(Frozen):
    """A new purpose for which authorizations may be asked."""

    name: Annotated[str, AfterValidator(_purpose_name)] = Field(title="Name", description="such as missing-person")
    text: AuditLine = Field(title="Text", max_length=500, description="what it is, for people")


class AssessmentParameters(Frozen):
    text: AuditLine = Field(title="Text", max_length=500, description="where the signed assessment is found")


class AuthorizationParameters(Period):
    """What is asked for: who is sought, for which purpose, where, in which period, and until when."""

    kind: Literal["search", "urgent", "standing", "subject"] = Field("search", title="Kind")
    purpose: Line = Field(title="Purpose", max_length=64, description="a name of the administrator's list")
    legal_basis: AuditText = Field(title="Legal basis", max_length=500, description="such as a court's order")
    sought: AuditText = Field(title="Sought", max_length=500, description="who is looked for")
    units: tuple[Code, ...] = Field(title="Units", min_length=1, max_length=100)
    from_time: AwareDatetime = Field(title="From", description="start of what may be seen, with a time zone")
    to_time: AwareDatetime = Field(title="To", description="end of what may be seen, with a time zone")
    expires_at: AwareDatetime = Field(title="Expires", description="when it ends")

    @field_validator("expires_at")
    @classmethod
    def _still_to_come(cls, expires_at: datetime) -> datetime:
        if expires_at <= datetime.now(UTC):
            raise ValueError("lies before now")
        return expires_at


class StandingParameters(Frozen):
    """A standing search: whom to look for as windows close, where, and from which probability on a hit is raised."""

    units: tuple[Code, ...] = Field(
        title="Units", min_length=1, max_length=20, description="buildings, streets or districts"
    )
    crops: tuple[CropKey, ...] = Field((), title="Crops", max_length=20, description="keys of crops of the person")
    probes: tuple[UUID, ...] = Field((), title="Probes", max_length=20, description="ids of uploaded pictures")
    bar: float = Field(0.9, title="Bar", ge=0.01, le=1.0, description="probability from which on a hit is raised")
    from_time: AwareDatetime | None = Field(None, title="From", description="of what cameras see; empty: from now on")
    to_time: AwareDatetime | None = Field(None, title="To", description="empty: the end of the authorization's period")
    reason: AuditText = Field(title="Reason", max_length=2000, description="why this person is looked for")
    operator: AuditText = Field(title="Operator", max_length=200, description="who asks")

    @model_validator(mode="after")
    def _has_a_picture(self) -> Self:
        if not self.crops and not self.probes:
            raise ValueError("give a crop's key or a probe id")
        if any(len(set(of)) < len(of) for of in (self.crops, self.probes, self.units)):
            raise ValueError("one crop, probe or unit is given twice")
        return self


class CropEvidence(Frozen):
    key: str
    camera: str
    time: datetime | None
    distance: float | None = Field(description="None of a search without a picture")
    lineage: tuple[UUID, ...] = Field(description="persistent ids from the hit's identity down to the crop's tracklet")


class Covered(Frozen):
    """What a search looked at."""

    unit: str
    from_time: datetime | None = Field(description="None: from the first crop")
    to_time: datetime | None = Field(description="None: to the last crop")
    cameras: int = Field(ge=0, description="cameras of the unit")
    exact: bool = Field(
        True, description="every identity by attended distance; else those of a sample and the nearest by cosine"
    )
    models: tuple[str, ...] = Field((), description="names of the models that knew the identities that were looked at")
    partitions: int = Field(
        0, ge=0, description="days whose vectors of these models are kept, in partitions of their own"
    )
    operating_point: float | None = Field(
        None,
        description="probability from which on the city itself joins two at this level; None without a calibration",
    )
    recall: float | None = Field(
        None,
        description="of searches that were not exact, a sample, the share of the ten nearest that was compared by "
        "attended distance; None where it was not measured yet",
    )


class SearchHit(Frozen):
    rank: int
    lead: UUID | None = Field(None, description="for `urban-reid leads`; None in a home without authorizations")
    identity: UUID
    unit: str
    model: str = Field(description="the model of the distance; distances of two models cannot be compared")
    distance: float | None = Field(description="None of a search without a picture")
    log_ratio: float | None = Field(
        None,
        description="log likelihood ratio of look, time and place: the probe's person against a stranger; None without "
        "a calibration, and where it is impossible",
    )
    log_look: float | None = Field(
        None, description="the part of the look in it, all of it for a probe without a time; None where that is None"
    )
    impossible: bool = Field(
        False, description="two places at once, or faster than anyone walks: not the probe's person"
    )
    probability: float | None = Field(
        description="that this identity is the probe's person, given all that was compared; None without a calibration"
    )
    first_seen: datetime | None
    last_seen: datetime | None
    transit: float | None = Field(
        None,
        description="the part of time and place in log_ratio: above 0 they speak for it, below 0 against it; None "
        "where they say nothing, as of a probe without a time",
    )
    attributes: tuple[str, ...] | None = Field(
        None, description="what its crops show, where the search asks for attributes; None: not asked, or not known"
    )
    crops: tuple[CropEvidence, ...]


class Filtered(Frozen):
    """What a filter by attributes did: who is shown has them, or nothing is known of theirs."""

    asked: tuple[str, ...] = Field(description="such as red top, no hat")
    matching: int = Field(ge=0, description="identities that have what is asked for")
    unknown: int = Field(ge=0, description="identities of which no attributes are known")
    left_out: int = Field(ge=0, description="identities that have something else, and are not shown")
    disagree: float = Field(
        description="share of people of whom two cameras do not agree on what is asked for, by measured error rates"
    )

    @property
    def lines(self) -> list[str]:
        """What it did, in plain words."""
        return [
            said(f"Asked for: {', '.join(self.asked)}."),
            said(
                f"{self.matching} show that, {self.left_out} show something else and are left out, and of "
                f"{self.unknown} nothing is known."
            ),
            said(
                f"Two cameras disagree on it for {self.disagree:.0%} of people, so the person may be among those who "
                "are left out."
            ),
        ]


#: What every result of a search says.
LEAD: Literal["lead, not identification"] = "lead, not identification"


class SearchEvidence(Frozen):
    """What a search says beside its hits: with that of other databases it gives the probabilities of all together."""

    calibration: SearchCalibration
    best: tuple[float, ...] = Field(
        description="log likelihood ratios of those who are most like the person, descending; of no others than 200"
    )
    look: tuple[float, ...] = Field(description="the part of the look in each of them")
    log_rest: float | None = Field(description="log of the sum of the others' likelihood ratios; None: it is 0")
    count: int = Field(ge=0, description="identities that were compared")


class SearchResult(Frozen):
    """The hits of a search, and what it says as a whole."""

    meaning: Literal["lead, not identification"] = Field(LEAD, description="of a hit, until two people confirm it")
    covered: Covered = Field(description="what was searched")
    hits: tuple[SearchHit, ...]
    compared: int = Field(ge=0, description="identities that the probe was compared with")
    impossible: int = Field(0, ge=0, description="of them, those that cannot be the probe's person")
    not_here: float | None = Field(
        description="probability that none of them is the probe's person; None without a calibration"
    )
    attributes: Filtered | None = Field(None, description="what a filter by attributes did; None without one")
    note: str = Field("", description="what to know about the probabilities, in words")
    blind: tuple[Outage, ...] = Field(
        (), description="when cameras of the unit saw nothing, within the period; the latest first, at most a hundred"
    )
    evidence: SearchEvidence | None = Field(
        None,
        description="to be merged with that of other databases; None without probabilities, or if not asked",
    )

    @property
    def lines(self) -> list[str]:
        """What the search says as a whole, in plain words."""
        lines = [said("Each hit is a lead, not identification.")] if self.hits else []
        if self.attributes is not None:
            lines += self.attributes.lines
        one = said("1 identity was compared.")
        lines.append(one if self.compared == 1 else said(f"{self.compared} identities were compared."))
        if self.impossible:
            lines.append(
                said(
                    f"{self.impossible} of them cannot be the person: they were elsewhere when the probe was taken, or "
                    "too far away to have walked."
                )
            )
        if self.not_here is not None:
            lines.append(
                said(
                    f"Not here: it is {chance(self.not_here)} likely that none of them is the person. Beside each "
                    "hit stands how likely it is to be the person."
                )
            )
        return [*lines, self.note] if self.note else lines

    @property
    def summary(self) -> str:
        return " ".join(self.lines)
