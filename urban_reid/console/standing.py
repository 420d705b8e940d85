"""Standing searches: asked for with what a search began with, approved by whoever saw the pictures, and their hits."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from pipeline.crops.crop_store import CropStore
from pipeline.standing import searches
from schemas.errors import InputError
from schemas.parameters import StandingParameters
from urban_reid.console.casework import Reason
from urban_reid.console.context import Asking, Console, Here, Sending
from urban_reid.console.forms import checked, moment
from urban_reid.console.looking import check_may_look
from urban_reid.console.pictures import crop_of, media_type
from urban_reid.console.refusals import shown_on
from urban_reid.console.texts import N_, _
from urban_reid.console.visitors import Visitor

routes = APIRouter()

#: Likelihoods from which on a hit may be raised.
_BARS = (0.5, 0.8, 0.9, 0.95, 0.99)
#: Of those that look no more.
_A_PAGE = 50


@routes.get("/standing")
def standing_page(
    here: Here,
    found: Asking,
    like: Annotated[tuple[str, ...], Query()] = (),
    probe: Annotated[tuple[UUID, ...], Query()] = (),
    unit: Annotated[str, Query()] = "",
    before: Annotated[datetime | None, Query()] = None,
) -> HTMLResponse:
    """like, probe: whom to look for, by the last parts of crops' addresses and as uploaded pictures.

    before: of those that look no more, the ones that were asked for before it.
    """
    earlier = searches.earlier_searches(found.store, before, _A_PAGE + 1)
    more, earlier = len(earlier) > _A_PAGE, earlier[:_A_PAGE]
    values = {"like": like, "probe": probe, "unit": unit, "bars": _BARS, "earlier": earlier, "next": more}
    return here.page("standing", found, **values, **standing_contents(here, found))


def standing_contents(_: Console, found: Visitor) -> dict[str, Any]:
    """What the page shows of those that look now."""
    return {"standing": searches.current_searches(found.store)}


def looking(found: Visitor) -> int:
    """How many look where the visitor works; 0 for whoever has no part in cases."""
    if not found.grant.is_open and found.grant.role not in ("operator", "supervisor", "auditor"):
        return 0
    return searches.how_many_current(found.store)


@routes.post("/standing")
@shown_on(standing_page)
def start(
    here: Here,
    found: Sending,
    units: Annotated[list[str], Form()],
    bar: Annotated[float, Form()],
    reason: Reason,
    like: Annotated[tuple[str, ...], Form()] = (),
    probe: Annotated[tuple[UUID, ...], Form()] = (),
    to_time: Annotated[str, Form()] = "",
) -> Response:
    check_may_look(found, N_("a standing search"))
    crops = [crop_of(name, found) for name in like]
    if None in crops or not (crops or probe):
        raise InputError(N_("that picture is not there any more; choose another one"))
    asked = checked(
        StandingParameters,
        units=tuple(units),
        crops=tuple(dict.fromkeys(crops)),
        probes=probe,
        bar=bar,
        to_time=moment(to_time, here.city()[1]) if to_time else None,
        reason=reason,
        operator=found.name,
    )
    return _to(searches.start(found.store, asked))


@routes.get("/standing/{standing}")
def one_page(here: Here, found: Asking, standing: UUID) -> HTMLResponse:
    row = searches.standing_search(found.store, str(standing))
    many = searches.note_look(found.store, row.id)
    return here.page("standing-one", found, one=row, many=many, hits=searches.hits(found.store, row.id))


@routes.get("/standing/{standing}/{number}")
def picture(here: Here, found: Asking, standing: UUID, number: int) -> Response:
    shown = searches.pictures(found.store, CropStore(here.store.settings), standing)
    if not 0 < number <= len(shown):
        return PlainTextResponse(_("there is no such picture"), 404)
    data = shown[number - 1]
    return Response(data, media_type=media_type(data))


@routes.post("/standing/{standing}/approve")
@shown_on(one_page)
def approve(found: Sending, standing: UUID, reason: Reason) -> Response:
    return _to(searches.approve(found.store, str(standing), reason=reason))


@routes.post("/standing/{standing}/end")
@shown_on(one_page)
def end(found: Sending, standing: UUID, reason: Reason) -> Response:
    return _to(searches.end(found.store, str(standing), reason=reason))


def _to(standing: UUID) -> Response:
    return RedirectResponse(f"/standing/{standing}", 303)
