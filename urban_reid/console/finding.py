"""Searches: asked with a picture or with crops, narrowed, and asked again with what was found."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Form, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from pipeline.browsing.crops import pictures_of_crops
from schemas.errors import InputError
from urban_reid.console.context import Asking, Console, Here, Sending
from urban_reid.console.forms import moment, sent_picture
from urban_reid.console.limits import Limit
from urban_reid.console.pictures import crop_of
from urban_reid.console.visitors import Visitor

#: Searches of one visitor.
_SEARCHES = Limit(0.5, 20)

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
    probe: Annotated[UUID | None, Form()] = None  # an uploaded picture
    like: Annotated[tuple[str, ...], Form()] = ()  # the person's crops
    unlike: Annotated[tuple[str, ...], Form()] = ()  # crops of whom it is not

    def with_said(self, plus: str, minus: str, drop: str) -> None:
        """Adds a crop of the person, adds one of somebody else, or takes one away."""
        said = {plus, minus, drop}
        self.like = (*(one for one in self.like if one not in said), *([plus] if plus else []))
        self.unlike = (*(one for one in self.unlike if one not in said), *([minus] if minus else []))

    def parameters(self, visitor: Visitor, zone: ZoneInfo) -> dict[str, Any]:
        """Fields of SearchParameters, without what the search begins with, and the key of the first crop."""
        like, unlike = (
            list(dict.fromkeys(_key(name, visitor) for name in names)) for names in (self.like, self.unlike)
        )
        first = "" if self.probe or not like else like.pop(0)
        return {
            "unit": self.unit,
            "reason": self.reason,
            "from_time": moment(self.from_time, zone) if self.from_time else None,
            "to_time": moment(self.to_time, zone) if self.to_time else None,
            "day_from": self.day_from or None,
            "day_to": self.day_to or None,
            "more": like,
            "unlike": unlike,
            "probe": self.probe,
            "crop": first,
        }


def _key(name: str, visitor: Visitor) -> str:
    key = crop_of(name, visitor)
    if key is None:
        raise InputError("that picture is not there any more; choose another one")
    return key


@routes.get("/search")
def search_page(here: Here, found: Asking, like: str = "", unit: str = "") -> HTMLResponse:
    asked = Asked(unit=unit, like=(like,) if like else ())
    return here.page("search", found, asked=asked, result=None, pictures={})


@routes.get("/search/people/{name}")
def offered_picture(here: Here, found: Asking, name: str) -> Response:
    data = here.searches.offered.get(name, found)
    if data is None:
        return PlainTextResponse("there is no such picture", 404)
    return Response(data, media_type="image/png")


@routes.post("/search")
def search_now(
    here: Here,
    found: Sending,
    asked: Annotated[Asked, Depends()],
    upload: UploadFile | None = None,
    chosen: Annotated[str, Form()] = "",
    plus: Annotated[str, Form()] = "",
    minus: Annotated[str, Form()] = "",
    drop: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """chosen: one of the people of an earlier upload. plus, minus, drop: a crop that counts otherwise from now on."""
    if wait_s := _SEARCHES.wait_s(found.token):
        raise InputError(f"you have asked very often; wait {max(1, round(wait_s + 0.5))} s")
    asked.with_said(plus, minus, drop)
    values = asked.parameters(found, here.city()[1])
    data = _chosen(here, found, chosen) if chosen else sent_picture(upload)
    if data and not chosen:
        people = here.searches.people(data, found)
        if len(people) > 1:
            return here.page("choose", found, asked=asked, offered=here.searches.offered.keep(people, found))
        data = people[0] if people else data
    parameters, result = here.searches.run(found, picture=data, **values)
    asked.probe = parameters.probe_id
    keys = [one.key for hit in result.hits for one in hit.crops]
    with found.store.signed_in() as connection:
        pictures = pictures_of_crops(connection, keys)
    return here.page("search", found, asked=asked, result=result, pictures=pictures)


def _chosen(here: Console, found: Visitor, name: str) -> bytes:
    data = here.searches.offered.get(name, found)
    if data is None:
        raise InputError("the pictures to choose from are not kept any more; send the picture again")
    return data
