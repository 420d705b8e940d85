"""The first page: how the city stands, where its places lie, how people go between them; kept up to date."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from pipeline.browsing.plan import draw_plan
from pipeline.browsing.plan_picture import read_extent, read_picture, remove_picture, store_picture
from pipeline.cameras.overview import STATES, overview
from pipeline.governance.doors import check_role
from schemas.errors import NotAllowed, UrbanReidError
from schemas.roles import Role
from urban_reid.console.away import connects
from urban_reid.console.context import Asking, Console, Here, Sending, check_page, gets
from urban_reid.console.forms import sent_picture
from urban_reid.console.limits import Place
from urban_reid.console.refusals import shown_on
from urban_reid.console.standing import looking, standing_contents
from urban_reid.console.texts import N_, _
from urban_reid.console.visitors import Visitor, cookie_of
from urban_reid.console.words import WORDS

routes = APIRouter()
#: How often the pages that are open are looked after, and how often a line is sent though nothing changed, seconds.
_LOOK_EVERY_S, _ALIVE_EVERY_S = 2.0, 20.0
#: A part that takes longer than this to be read is said to be away; it is waited for all the same.
_PATIENCE_S = 5.0


@routes.get("/")
def overview_page(here: Here, found: Asking) -> HTMLResponse:
    return here.page("overview", found, **_contents(here, found))


@routes.get("/events/{name}")
async def events(request: Request, here: Here, found: Asking, name: str) -> Response:
    """What a page shows, whenever it changed: one event with its HTML, as JSON. For whoever gets the page."""
    if name not in _LIVE:
        return PlainTextResponse(_("there is no such page"), 404)
    await run_in_threadpool(check_page, found, name)
    place = here.streams.take(found.token)
    if place is None:
        return PlainTextResponse(_("too many pages are open"), 503, headers={"Retry-After": "20"})
    return _Stream(here, place, changes(here, cookie_of(request), name, place, request.is_disconnected))


class _Stream(StreamingResponse):
    """Events, whose place is given back however the stream ends."""

    def __init__(self, here: Console, place: Place, content: AsyncIterator[str]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self._here, self._place = here, place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._here.streams.free(self._place)


async def changes(
    here: Console, cookie: str, name: str, place: Place, is_gone: Callable[[], Awaitable[bool]]
) -> AsyncIterator[str]:
    """The parts of a page as server-sent events, until the visit ends or another page takes the stream's place.

    `message`: the part anew. `away`: a notice beside what is shown, which is of before. `over`: the last one, and why.
    `alive`: nothing changed; where that stays away, the page says so.
    """
    shown, silent_s = "", 0.0
    while not await is_gone():
        if place.is_over:
            yield _event("over", here.pages.render("over", None, why="many"))
            return
        part = asyncio.ensure_future(run_in_threadpool(_part, here, cookie, name))
        while not (await asyncio.wait({part}, timeout=_PATIENCE_S))[0]:
            if await is_gone():
                return
            yield _event("away", _unreachable(here))
            shown = ""
        kind, text = part.result()
        if kind == "over":
            yield _event(kind, text)
            return
        if kind == "away" or text != shown:
            yield _event(kind, text)
            shown, silent_s = text if kind == "message" else "", 0.0
        elif silent_s >= _ALIVE_EVERY_S:
            yield _event("alive", "")
            silent_s = 0.0
        await asyncio.sleep(_LOOK_EVERY_S)
        silent_s += _LOOK_EVERY_S


def _event(kind: str, html: str) -> str:
    return f"event: {kind}\ndata: {json.dumps(html)}\n\n"


def _unreachable(here: Console) -> str:
    return here.pages.render("unreachable", None, zone=here.zone, since=here.watch.since("database"))


def _part(here: Console, cookie: str, name: str) -> tuple[str, str]:
    """The kind of an event and its HTML: the changing part of a page, or why there is none."""
    try:
        found = here.visitors.find(cookie)
        if found is None:
            return "over", here.pages.render("over", None, why="left")
        city, zone = here.city()
        values = {"city": city, "zone": zone, "away": here.watch.away()}
        return "message", here.pages.render(f"{name}-live", found, **values, **_LIVE[name](here, found))
    except NotAllowed:  # from now on: asked again, each time would be a refusal of its own in the audit
        return "over", here.pages.render("over", None, why="left")
    except UrbanReidError:
        return "away", _unreachable(here)


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
        store_picture(here.store.settings, here.uploads.decode(data), left, bottom, width_m)
    else:
        remove_picture(here.store.settings)
    return RedirectResponse("/", 303)


@routes.get("/words")
def words(here: Here, found: Annotated[Visitor, Depends(gets("words"))]) -> HTMLResponse:
    return here.page("words", found, words=WORDS)


def _contents(here: Console, found: Visitor) -> dict[str, Any]:
    city, _ = here.city()
    counts = here.counting.now()
    with here.store.begin() as connection:
        cameras = overview(connection, datetime.now(UTC))
    extent = read_extent(here.store.settings)
    plan = draw_plan(city, counts.ways if counts else {}, extent)
    blind = {one.feed.camera for one in cameras if one.state in ("down", "refused")}
    shown = {"counts": counts, "cameras": cameras, "states": STATES, "plan": plan, "extent": extent, "blind": blind}
    return shown | {"looking": looking(found)}


def camera_contents(here: Console) -> dict[str, Any]:
    """What the page of cameras shows of how they fare. `runs`: whether the cameras' process does."""
    now = datetime.now(UTC)
    with here.store.begin() as connection:
        shown = {
            "cameras": overview(connection, now),
            "states": STATES,
            "now": now,
            "this_host": here.store.settings.host_name,
        }
    return shown | {"runs": connects(here.store.settings.cameras_socket)}


_LIVE: dict[str, Callable[[Console, Visitor], dict[str, Any]]] = {
    "overview": _contents,
    "cameras": lambda here, _: camera_contents(here),
    "standing": standing_contents,
}
