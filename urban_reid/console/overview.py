"""The first page: how the city stands, where its places lie, how people go between them; kept up to date."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from pipeline.browsing.plan import draw_plan
from pipeline.browsing.plan_picture import read_extent, read_picture, remove_picture, store_picture
from pipeline.cameras.overview import STATES, overview
from pipeline.governance.doors import check_role
from schemas.errors import UrbanReidError
from schemas.roles import Role
from urban_reid.console.context import Asking, Console, Here, Sending, gets
from urban_reid.console.forms import sent_picture
from urban_reid.console.refusals import on_page, shown_on
from urban_reid.console.texts import N_, _
from urban_reid.console.visitors import COOKIE, Visitor
from urban_reid.console.words import WORDS

routes = APIRouter()
#: How often the pages that are open are looked after, and how often a line is sent though nothing changed, seconds.
_LOOK_EVERY_S, _ALIVE_EVERY_S = 2.0, 20.0


@routes.get("/")
def overview_page(here: Here, found: Asking) -> HTMLResponse:
    return here.page("overview", found, **_contents(here))


@routes.get("/events/{name}")
async def events(request: Request, here: Here, _visitor: Asking, name: str) -> Response:
    """What a page shows, whenever it changed: one event with its HTML, as JSON."""
    if name not in _LIVE:
        return PlainTextResponse(_("there is no such page"), 404)
    cookie = request.cookies.get(COOKIE, "")
    return StreamingResponse(changes(here, cookie, name), media_type="text/event-stream")


async def changes(here: Console, cookie: str, name: str) -> AsyncIterator[str]:
    """The parts of a page as server-sent events, until the visit ends."""
    shown, silent_s = "", 0.0
    while True:
        found = await run_in_threadpool(_part, here, cookie, name)
        if found is None:
            return
        if found != shown:
            yield f"data: {json.dumps(found)}\n\n"
            shown, silent_s = found, 0.0
        elif silent_s >= _ALIVE_EVERY_S:
            yield ": still there\n\n"
            silent_s = 0.0
        await anyio.sleep(_LOOK_EVERY_S)
        silent_s += _LOOK_EVERY_S


def _part(here: Console, cookie: str, name: str) -> str | None:
    """The changing part of a page; None where its visitor has left."""
    try:
        found = here.visitors.find(cookie)
        if found is None:
            return None
        city, zone = here.city()
        return here.pages.render(f"{name}-live", found, city=city, zone=zone, **_LIVE[name](here))
    except UrbanReidError as error:
        return here.pages.render("unreachable", None, message=on_page(error))


@routes.get("/plan.png")
def plan_picture(here: Here, _visitor: Asking) -> Response:
    data = read_picture(here.store.settings)
    return PlainTextResponse(_("there is no picture"), 404) if data is None else Response(data, media_type="image/png")


@routes.post("/plan")
@shown_on(overview_page)
def set_plan(
    here: Here,
    found: Sending,
    upload: UploadFile | None = None,
    left: Annotated[float, Form()] = 0.0,
    bottom: Annotated[float, Form()] = 0.0,
    width_m: Annotated[float, Form()] = 0.0,
) -> Response:
    """Puts a picture below the plan; without one, takes it away."""
    check_role(found.store, (Role.ENGINEER, Role.ADMINISTRATOR), N_("a picture of the plan"))
    data = sent_picture(upload)
    if data:
        store_picture(here.store.settings, data, left, bottom, width_m)
    else:
        remove_picture(here.store.settings)
    return RedirectResponse("/", 303)


@routes.get("/words")
def words(here: Here, found: Annotated[Visitor, Depends(gets("words"))]) -> HTMLResponse:
    return here.page("words", found, words=WORDS)


def _contents(here: Console) -> dict[str, Any]:
    city, _ = here.city()
    counts = here.counting.now()
    with here.store.begin() as connection:
        cameras = overview(connection, datetime.now(UTC))
    extent = read_extent(here.store.settings)
    plan = draw_plan(city, counts.ways if counts else {}, extent)
    blind = {one.feed.camera for one in cameras if one.state in ("down", "refused")}
    return {"counts": counts, "cameras": cameras, "states": STATES, "plan": plan, "extent": extent, "blind": blind}


def camera_contents(here: Console) -> dict[str, Any]:
    """What the page of cameras shows of how they fare."""
    now = datetime.now(UTC)
    with here.store.begin() as connection:
        return {"cameras": overview(connection, now), "states": STATES, "now": now}


_LIVE = {"overview": _contents, "cameras": camera_contents}
