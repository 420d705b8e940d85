"""What all routes share, and who asks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import Depends, Form, Request
from fastapi.responses import HTMLResponse

from pipeline.browsing.models import Sureness
from pipeline.city.units import read_city
from pipeline.governance.doors import check_role
from pipeline.store import Store
from schemas.city_file import City
from schemas.errors import NotAllowed
from urban_reid.console.away import Watch
from urban_reid.console.beside import Beside, Counting
from urban_reid.console.limits import Places
from urban_reid.console.pages import Pages
from urban_reid.console.pictures import Thumbnails
from urban_reid.console.searching import Searches
from urban_reid.console.switching import Switching
from urban_reid.console.texts import N_
from urban_reid.console.trials import Trials
from urban_reid.console.uploads import Uploads
from urban_reid.console.visitors import Visitor, Visitors, cookie_of
from urban_reid.permissions import PAGES

#: Streams of events of one visitor, and of all together. A browser opens six connections to a host, pages included.
_STREAMS, _ALL_STREAMS = 4, 200


class SignInNeeded(Exception):
    """Nobody is signed in; the answer leads to the page where one signs in."""


@dataclass
class Console:
    store: Store
    visitors: Visitors
    pages: Pages
    thumbnails: Thumbnails
    searches: Searches
    counting: Counting
    judging: Beside[list[Sureness]]
    trials: Trials
    switching: Switching
    watch: Watch
    uploads: Uploads
    #: Of the city, as it was when the database answered last.
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    streams: Places = field(default_factory=lambda: Places(_STREAMS, _ALL_STREAMS))

    def page(self, name: str, found: Visitor, **values: Any) -> HTMLResponse:
        """A page for a visitor, with times in the city's zone."""
        city, zone = self.city()
        values |= {"city": city, "zone": zone, "away": self.watch.away()}
        return HTMLResponse(self.pages.render(name, found, **values))

    def city(self) -> tuple[City, ZoneInfo]:
        city = read_city(self.store)
        self.zone = ZoneInfo(city.timezone)
        return city, self.zone


def _console(request: Request) -> Console:
    found = request.app.state.console
    assert isinstance(found, Console)
    return found


Here = Annotated[Console, Depends(_console)]


def _visitor(request: Request, here: Here) -> Visitor:
    found = here.visitors.find(cookie_of(request))
    if found is None:
        raise SignInNeeded
    return found


#: Whoever asks for a page. Routes with it answer nobody who is not signed in.
Asking = Annotated[Visitor, Depends(_visitor)]


async def _keep(request: Request) -> None:
    """Keeps what a form said, so that nobody has to say it again where it could not be carried out."""
    request.state.sent = (await request.form()).multi_items()


def _sender(_: Annotated[None, Depends(_keep)], found: Asking, form_key: Annotated[str, Form()] = "") -> Visitor:
    if form_key != found.form_key:
        raise NotAllowed("this page is too old to be sent; load it again")
    return found


#: Whoever sends a form of ours.
Sending = Annotated[Visitor, Depends(_sender)]


def gets(page: str) -> Callable[[Visitor], Visitor]:
    """A dependency: whoever asks, if a page of `urban_reid.permissions.PAGES` is for their role. Raises NotAllowed."""

    def find(found: Asking) -> Visitor:
        check_page(found, page)
        return found

    return find


def check_page(found: Visitor, page: str) -> None:
    """Raises NotAllowed, with a row of the audit, where a page is not for whoever asks."""
    if (roles := PAGES[page]) is not None:
        check_role(found.store, roles, N_("this page"))
