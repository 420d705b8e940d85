"""What the API answers: the same as the pages, as JSON."""

from collections.abc import Callable
from uuid import UUID

from pydantic import AwareDatetime, Field

from pipeline.browsing.city_now import CityNow
from pipeline.browsing.journey import Journey
from pipeline.browsing.people import People
from pipeline.cameras.overview import Overview, Seen
from pipeline.governance.doors import Grant
from pipeline.report.thumbnails import Picture
from schemas.city_file import City
from schemas.levels import Code, Level
from schemas.settings import Frozen


class Fault(Frozen):
    """Why a request was not answered."""

    error: str = Field(description="one line: what was wrong, and what to do")


class Me(Frozen):
    """What the token stands for: its scope."""

    name: str
    role: str | None = Field(description="None in an open home: all roles")
    units: tuple[str, ...] = Field(description="with all below them; the empty code stands for the whole city")
    authorization: UUID | None
    from_time: AwareDatetime | None
    to_time: AwareDatetime | None
    is_open: bool = Field(description="whether the home holds no people of real cameras")

    @classmethod
    def of(cls, name: str, grant: Grant) -> "Me":
        fields = {one: getattr(grant, one) for one in cls.model_fields if one != "name"}
        return cls(name=name, **fields)


class UnitOut(Frozen):
    code: Code
    name: str
    level: Level
    position: tuple[float, float] | None = Field(description="of a camera: meters east and north")
    people: int | None = Field(description="identities now; None while the city is being counted for the first time")
    pictures: int | None
    reviews: int | None = Field(description="pairs that wait for a person's look")
    present: int | None = Field(description="people seen in the last 15 minutes")
    last_seen: AwareDatetime | None


class CityOut(Frozen):
    timezone: str
    units: tuple[UnitOut, ...]
    counted_at: AwareDatetime | None
    waiting: int | None = Field(description="units with windows that are not decided yet")
    lag_p50_s: float | None
    lag_p95_s: float | None


class CameraOut(Frozen):
    camera: Code
    state: Seen
    since: AwareDatetime | None
    last_frame_at: AwareDatetime | None
    looks_per_s: float | None
    people: int | None = Field(description="in view at the last look")
    detail: str
    host: str | None = Field(None, description="the machine that looks at it, where several may")

    @classmethod
    def of(cls, one: Overview) -> "CameraOut":
        health = one.health
        return cls(
            camera=one.feed.camera,
            state=one.state,
            since=one.since,
            last_frame_at=health and health.last_frame_at,
            looks_per_s=health.looks_per_s if health else None,
            people=health.people if health else None,
            detail=health.detail if health else "",
            host=one.host,
        )


class PersonOut(Frozen):
    identity: UUID
    first_seen: AwareDatetime
    last_seen: AwareDatetime
    timed: bool = Field(description="whether these times are known")
    pictures: int
    passages: int
    cover: str | None = Field(description="path of a picture, for this token alone")


class PeopleOut(Frozen):
    people: tuple[PersonOut, ...]
    next_at: AwareDatetime | None = Field(description="with next_after: where the next page begins; None: no more")
    next_after: int | None


class PassageOut(Frozen):
    camera: Code
    first_seen: AwareDatetime
    last_seen: AwareDatetime
    timed: bool
    pictures: tuple[str, ...] = Field(description="paths of at most three pictures, for this token alone")


class JoinOut(Frozen):
    unit: Code
    probability: float
    distance: float
    look: float = Field(description="probability by looks alone")
    gap_s: float | None
    words: str


class JourneyOut(Frozen):
    identity: UUID
    unit: Code
    meaning: str = "what the system believes to be one person; not an identification"
    passages: tuple[PassageOut, ...]
    joins: tuple[JoinOut, ...] = Field(description="the least certain first")


class LeadOut(Frozen):
    lead: UUID
    unit: Code
    asked_by: str
    verdict: str
    own_answer: bool | None


def city_out(city: City, counts: CityNow | None) -> CityOut:
    counted = {unit.code: unit for unit in counts.units} if counts else {}
    shown = []
    for unit in city.units:
        one = counted.get(unit.code)
        sight = counts.sight(unit.code) if counts else None
        shown.append(
            UnitOut(
                code=unit.code,
                name=unit.name,
                level=unit.level,
                position=unit.position,
                people=one.identities if one else None,
                pictures=one.crops if one else None,
                reviews=one.reviews if one else None,
                present=sight.present if sight else None,
                last_seen=sight.last_seen if sight else None,
            )
        )
    return CityOut(
        timezone=city.timezone,
        units=tuple(shown),
        counted_at=counts.at if counts else None,
        waiting=counts.waiting if counts else None,
        lag_p50_s=counts.lag.p50_s if counts else None,
        lag_p95_s=counts.lag.p95_s if counts else None,
    )


def people_out(found: People, path: Callable[[Picture], str]) -> PeopleOut:
    """`path`: of a picture, for who asks."""
    people = [
        PersonOut(
            identity=one.persistent_id,
            first_seen=one.first_seen,
            last_seen=one.last_seen,
            timed=one.timed,
            pictures=one.crops,
            passages=one.tracklets,
            cover=None if one.cover is None else path(one.cover),
        )
        for one in found.people
    ]
    place = found.next
    return PeopleOut(
        people=tuple(people), next_at=place and place.last_seen, next_after=None if place is None else place.id
    )


def journey_out(found: Journey, path: Callable[[Picture], str]) -> JourneyOut:
    passages = [
        PassageOut(
            camera=one.camera,
            first_seen=one.first_seen,
            last_seen=one.last_seen,
            timed=one.timed,
            pictures=tuple(path(picture) for picture in found.pictures.get(one.id, ())),
        )
        for one in found.identity.tracklets
    ]
    joins = [
        JoinOut(
            unit=one.unit,
            probability=one.probability,
            distance=one.distance,
            look=one.look,
            gap_s=one.gap_s,
            words=f"{one.looks}, and {one.time}. {one.rival}",
        )
        for one in found.joins
    ]
    identity = found.identity.persistent_id
    return JourneyOut(identity=identity, unit=found.unit, passages=tuple(passages), joins=tuple(joins))
