"""Searches: asked with a picture or with crops, narrowed, and asked again with what was found."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, File, Form, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from pipeline.browsing.crops import pictures_of_crops
from pipeline.browsing.plan import draw_plan
from pipeline.browsing.plan_picture import read_extent
from schemas.attributes import COLORS, DISAGREE, NAMES, PLACES
from schemas.errors import InputError
from urban_reid.console.context import Asking, Console, Here, Sending, gets
from urban_reid.console.forms import moment, sent_picture
from urban_reid.console.limits import Limit
from urban_reid.console.looking import check_may_look, look_at_journey
from urban_reid.console.pictures import crop_of, media_type
from urban_reid.console.refusals import shown_on
from urban_reid.console.texts import N_
from urban_reid.console.visitors import Visitor

#: Searches of one visitor.
_SEARCHES = Limit(0.5, 20)

#: What a filter offers: names of attributes, colors by place, and how often two cameras disagree on each.
_FILTERS: dict[str, Any] = {"attributes": NAMES, "colors": COLORS, "places": PLACES, "disagree": DISAGREE}

routes = APIRouter()


@dataclass
class Asked:
    """What the form of a search says. Crops are named by the last part of their pictures' addresses."""

    unit: Annotated[str, Form()] = ""
    reason: Annotated[str, Form()] = ""
    from_time: Annotated[str, Form()] = ""
    to_time: Annotated[str, Form()] = ""
    day_from: Annotated[str, Form()] = ""
    day_to: Annotated[str, Form()] = ""
    wears: Annotated[tuple[str, ...], Form()] = ()  # terms such as "red top" or "no hat", and empty ones
    probe: Annotated[tuple[UUID, ...], Form()] = ()  # uploaded pictures
    sent: Annotated[tuple[str, ...], Form()] = ()  # what shows them beside the hits, for some minutes
    like: Annotated[tuple[str, ...], Form()] = ()  # the person's crops
    unlike: Annotated[tuple[str, ...], Form()] = ()  # crops of whom it is not

    def with_said(self, plus: str, minus: str, drop: str) -> None:
        """Adds a crop of the person, adds one of somebody else, or takes one away."""
        said = {plus, minus, drop}
        self.like = (*(one for one in self.like if one not in said), *([plus] if plus else []))
        self.unlike = (*(one for one in self.unlike if one not in said), *([minus] if minus else []))

    @property
    def has_picture(self) -> bool:
        """Whether it asks for a person, and not for a list of people."""
        return bool(self.probe or self.like)

    def parameters(self, visitor: Visitor, zone: ZoneInfo) -> dict[str, Any]:
        """What `Searches.run` takes, without pictures that were sent."""
        like, unlike = (
            list(dict.fromkeys(_key(name, visitor) for name in names)) for names in (self.like, self.unlike)
        )
        return {
            "unit": self.unit,
            "reason": self.reason,
            "from_time": moment(self.from_time, zone) if self.from_time else None,
            "to_time": moment(self.to_time, zone) if self.to_time else None,
            "day_from": self.day_from or None,
            "day_to": self.day_to or None,
            "attributes": ", ".join(filter(None, self.wears)),
            "like": like,
            "unlike": unlike,
            "uploaded": self.probe,
        }


def _key(name: str, visitor: Visitor) -> str:
    check_may_look(visitor, N_("a search"))
    key = crop_of(name, visitor)
    if key is None:
        raise InputError("that picture is not there any more; choose another one")
    return key


@routes.get("/search")
def search_page(
    here: Here, found: Annotated[Visitor, Depends(gets("search"))], like: str = "", unit: str = ""
) -> HTMLResponse:
    asked = Asked(unit=unit, like=(like,) if like else ())
    return here.page("search", found, asked=asked, result=None, pictures={}, **_FILTERS)


@routes.get("/search/people/{name}")
def offered_picture(here: Here, found: Asking, name: str) -> Response:
    data = here.searches.offered.get(name, found)
    if data is None:
        return PlainTextResponse("there is no such picture", 404)
    return Response(data, media_type=media_type(data))


@routes.get("/person/{identity}/beside")
def chosen_one(here: Here, found: Asking, identity: UUID) -> HTMLResponse:
    """The time line and the map of one hit, to be shown beside the others."""
    journey = look_at_journey(here, found, identity)
    cameras = [one.camera for one in journey.identity.tracklets]
    went = Counter((a, b) for a, b in pairwise(one.rpartition("/")[0] for one in cameras) if a != b)
    extent = read_extent(here.store.settings)
    plan = draw_plan(here.city()[0], went, extent)
    return here.page("beside", found, journey=journey, plan=plan, extent=extent, seen=set(cameras), blind=())


def search_again(
    here: Console,
    found: Visitor,
    unit: str = "",
    reason: str = "",
    from_time: str = "",
    to_time: str = "",
    day_from: str = "",
    day_to: str = "",
    wears: tuple[str, ...] = (),
    probe: tuple[UUID, ...] = (),
    sent: tuple[str, ...] = (),
    like: tuple[str, ...] = (),
    unlike: tuple[str, ...] = (),
) -> HTMLResponse:
    """The form of a search that was refused, as it was sent."""
    asked = Asked(unit, reason, from_time, to_time, day_from, day_to, wears, probe, sent, like, unlike)
    return here.page("search", found, asked=asked, result=None, pictures={}, **_FILTERS)


@routes.post("/search")
@shown_on(search_again)
def search_now(
    here: Here,
    found: Sending,
    asked: Annotated[Asked, Depends()],
    upload: Annotated[list[UploadFile], File(max_length=6)] = [],  # noqa: B006
    chosen: Annotated[tuple[str, ...], Form()] = (),
    group: Annotated[tuple[str, ...], Form()] = (),
    plus: Annotated[str, Form()] = "",
    minus: Annotated[str, Form()] = "",
    drop: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """chosen: people of earlier uploads; group: the people of one of these, of whom one is still to be chosen. plus,

    minus, drop: a crop that counts otherwise from now on.
    """
    if wait_s := _SEARCHES.wait_s(found.token):
        raise InputError(f"you have asked very often; wait {max(1, round(wait_s + 0.5))} s")
    asked.with_said(plus, minus, drop)
    values = asked.parameters(found, here.city()[1])
    sent, groups = _people(here, found, [data for one in upload if (data := sent_picture(one))])
    groups = [*(one.split() for one in group), *groups]
    if groups:
        names = [*chosen, *here.searches.offered.keep(sent, found)]
        return here.page("choose", found, asked=asked, chosen=names, offered=groups[0], others=groups[1:])
    sent = [*(_chosen(here, found, name) for name in chosen), *sent]
    parameters, result = here.searches.run(found, sent=sent, **values)
    asked.probe = tuple(one for one in (parameters.probe_id, *parameters.pictures) if one)
    kept = (name for name in asked.sent if here.searches.offered.get(name, found))
    asked.sent = (*kept, *here.searches.offered.keep(sent, found))
    here.searches.offered.chosen(chosen, found)
    keys = [one.key for hit in result.hits for one in hit.crops]
    with found.store.signed_in() as connection:
        pictures = pictures_of_crops(connection, keys)
    return here.page("search", found, asked=asked, result=result, pictures=pictures, **_FILTERS)


def _people(here: Console, found: Visitor, uploads: list[bytes]) -> tuple[list[bytes], list[list[str]]]:
    """The one person in each picture, the whole of it where nobody was found; and names of those in the others."""
    alone, groups = [], []
    for data in uploads:
        people = here.searches.people(data, found)
        if len(people) > 1:
            groups.append(here.searches.offered.keep(people, found))
        else:
            alone += people
    return alone, groups


def _chosen(here: Console, found: Visitor, name: str) -> bytes:
    data = here.searches.offered.get(name, found)
    if data is None:
        raise InputError("the pictures to choose from are not kept any more; send the picture again")
    return data
