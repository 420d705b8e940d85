"""People, journeys and pictures."""

from datetime import datetime
from hashlib import sha256
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from pipeline.browsing.journey import Journey, read_journey, unit_of
from pipeline.browsing.people import Place, read_people
from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from urban_reid.console.context import Asking, Console, Here
from urban_reid.console.texts import N_, _
from urban_reid.console.visitors import Visitor

routes = APIRouter()


@routes.get("/people/{unit:path}")
def people_page(
    here: Here, found: Asking, unit: str, at: Annotated[datetime | None, Query()] = None, after: int = 0
) -> Response:
    if not unit:  # an address typed by hand; the overview has all places
        return RedirectResponse("/", 303)
    here.city()[0].check_unit(unit)
    check_authorized(found.store, unit, N_("a look at people"), Action.PEOPLE_SHOW, details={"after": after})
    with found.store.signed_in(only_reads=True) as connection:
        shown = read_people(connection, unit, None if at is None else Place(at, after))
    return here.page("people", found, unit=unit, shown=shown)


@routes.get("/person/{identity}")
def person_page(here: Here, found: Asking, identity: UUID) -> HTMLResponse:
    return here.page("person", found, journey=look_at_journey(here, found, identity))


def look_at_journey(here: Console, found: Visitor, identity: UUID) -> Journey:
    """The journey of somebody, after its row of the audit. Raises NotAllowed, and InputError if there is none."""
    note_look(found, identity)
    with found.store.signed_in(only_reads=True) as connection:
        return read_journey(connection, identity, here.city()[1])


def check_may_look(found: Visitor, what: str) -> None:
    """Raises NotAllowed, with a row of the audit, where a look at persons takes an authorization and there is none.

    The database shows nobody then, so that it is asked before whether there is such a person, passage or picture.
    """
    if not found.grant.is_open and found.grant.authorization is None:
        check_authorized(found.store, "", what)


def note_look(found: Visitor, identity: UUID) -> None:
    """Writes the row of the audit for a look at a journey. Raises NotAllowed, and InputError if there is none."""
    what = N_("a look at a journey")
    check_may_look(found, what)
    with found.store.signed_in() as connection:
        unit = unit_of(connection, identity)
    check_authorized(found.store, unit, what, Action.PERSON_SHOW, details={"identity": str(identity)})


@routes.get("/pictures/{name}")
def picture(request: Request, here: Here, found: Asking, name: str) -> Response:
    """A browser keeps a picture, and asks before it shows it again whether it still may: 304 says so."""
    data = here.thumbnails.get(name, found)
    if data is None:
        return PlainTextResponse(_("there is no such picture"), 404)
    tag = f'"{sha256(data).hexdigest()}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)
