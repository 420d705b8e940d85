"""The application: its routes, and what every answer carries."""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.store import Store
from schemas.errors import CoreUnavailable, NotAllowed, StoreUnavailable, UrbanReidError, UsageError
from urban_reid.console import (
    auditing,
    by_hand,
    cameras,
    casework,
    comparing,
    engineering,
    finding,
    looking,
    overview,
    reviewing,
    signing_in,
    standing,
)
from urban_reid.console.api import fault_of, make_api, token_needed
from urban_reid.console.away import Watch
from urban_reid.console.beside import Counting, judging
from urban_reid.console.context import Console, SignInNeeded
from urban_reid.console.forms import FAULTS, fault, label
from urban_reid.console.pages import STATIC, Pages
from urban_reid.console.pictures import Thumbnails
from urban_reid.console.refusals import Sent, on_page, shown_again
from urban_reid.console.searching import Searches
from urban_reid.console.switching import Switching
from urban_reid.console.texts import _, reading, told
from urban_reid.console.trials import Trials
from urban_reid.console.uploads import Uploads
from urban_reid.console.visitors import Visitors, cookie_of

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: A picture and what stands beside it, bytes; and what somebody may send who is not signed in.
_LARGEST_FORM, _LARGEST_OF_NOBODY = 21_000_000, 20_000
#: What may be sent by somebody who has no cookie.
_OPEN = ("/sign-in", "/api/")
#: Where a form may come from, as browsers say it.
_OWN = ("same-origin", "none")


def _is_large(request: Request) -> bool:
    """Whether a form may be larger than any of ours: it says so, or it does not say how large it is."""
    length = request.headers.get("content-length", "")
    # What is sent in chunks is as long as they are, whatever length it states.
    return "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > _LARGEST_FORM


def _is_too_large_of_nobody(request: Request, visitors: Visitors) -> bool:
    """Whether a form that is not large is too large for its sender: a route asks who sent it when all of it is read.

    Raises StoreUnavailable.
    """
    if int(request.headers["content-length"]) <= _LARGEST_OF_NOBODY:
        return False
    token = cookie_of(request)
    if request.url.path.startswith("/api/"):
        token = request.headers.get("authorization", "").rpartition(" ")[2]
    return re.fullmatch("[0-9a-f]{64}", token) is None or visitors.find(token) is None


def make_app(store: Store, hosts: list[str]) -> FastAPI:
    """The console on a store. `hosts`: names by which it may be called, so that no other site's name leads here.

    `app.state.console` is its `Console`.
    """
    app = FastAPI(title="Urban-ReID console", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    pages, visitors, uploads = Pages(), Visitors(store), Uploads(store.settings)
    app.state.console = Console(
        store,
        visitors,
        pages,
        Thumbnails(store),
        Searches(store.settings, uploads),
        Counting(store),
        judging(store),
        Trials(store.settings),
        Switching(),
        Watch(store),
        uploads,
    )
    for part in (
        signing_in,
        overview,
        looking,
        finding,
        comparing,
        reviewing,
        by_hand,
        casework,
        standing,
        cameras,
        engineering,
        auditing,
    ):
        app.include_router(part.routes)

    app.mount("/api", make_api(app.state.console))

    async def unread(request: Request) -> Response | None:
        """The answer to a form that is not read; None: a route answers."""
        if request.method != "POST":
            return None
        if request.headers.get("sec-fetch-site", "same-origin") not in _OWN:
            return PlainTextResponse(_("this form was sent by another site"), 403)
        if _is_large(request):
            return PlainTextResponse(
                _("a form has at most %(mb)s MB, and says how many", mb=_LARGEST_FORM // 1_000_000), 413
            )
        if not cookie_of(request) and not request.url.path.startswith(_OPEN):
            return RedirectResponse("/sign-in", 303)
        is_program = request.url.path.startswith("/api/")
        try:
            is_too_large = await run_in_threadpool(_is_too_large_of_nobody, request, visitors)
        except UrbanReidError as error:  # which the routes' handlers do not see
            return fault_of(error) if is_program else await refused(request, error)
        if is_too_large:
            return token_needed() if is_program else RedirectResponse("/sign-in", 303)
        return None

    @app.middleware("http")
    async def headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        answer = await unread(request) or await go_on(request)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        if request.url.scheme == "https":
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        return answer

    @app.middleware("http")
    async def languages(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """The outermost, so that what the others say is in the visitor's language too."""
        if request.url.path.startswith("/api/"):
            return await go_on(request)
        with reading(request.headers.get("accept-language", "")):
            return await go_on(request)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        found = pages.static(name)
        if found is None:
            return PlainTextResponse(_("there is no such file"), 404)
        return Response(found, media_type=STATIC[name], headers={"Cache-Control": "max-age=3600"})

    def failed(request: Request, message: str, status: int, **values: object) -> HTMLResponse:
        visitor = None
        with suppress(UrbanReidError):  # of a database that does not answer: then the page has no menu
            visitor = app.state.console.visitors.find(cookie_of(request))
        values |= {"message": message, "status": status, "reads": request.method == "GET"}
        return HTMLResponse(pages.render("failed", visitor, away=app.state.console.watch.away(), **values), status)

    def unavailable(request: Request, error: UrbanReidError) -> HTMLResponse:
        """What does not answer now. A form that met it comes back, to be sent again; all but chosen pictures."""
        is_database = isinstance(error, StoreUnavailable)
        sent = getattr(request.state, "sent", [])
        values = {
            "is_database": is_database,
            "since": app.state.console.watch.since("database" if is_database else "core"),
            "path": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "fields": [(name, value) for name, value in sent if isinstance(value, str)],
            "has_file": any(not isinstance(value, str) and value.size for _name, value in sent),
        }
        visitor = None
        if not is_database:
            with suppress(UrbanReidError):
                visitor = app.state.console.visitors.find(cookie_of(request))
        values |= {"message": str(error), "reads": request.method == "GET", "away": ()}
        page = pages.render("unavailable", visitor, zone=app.state.console.zone, **values)
        return HTMLResponse(page, 503, headers={"Retry-After": "3"})

    @app.exception_handler(SignInNeeded)
    async def to_sign_in(request: Request, _error: SignInNeeded) -> Response:
        url = request.url
        way = url.path + (f"?{url.query}" if url.query else "") if request.method == "GET" else "/"
        return RedirectResponse(f"/sign-in?{urlencode({'to': way})}", 303)

    async def on_its_form(request: Request, message: str, status: int) -> Response:
        """The page of the form that was sent, with the reason and what was typed; else a page of its own."""
        fields = [*request.path_params.items()]
        if request.method == "POST" and hasattr(request.scope.get("endpoint"), "page"):
            fields += [(name, said) for name, said in (await request.form()).multi_items() if isinstance(said, str)]
        form = Sent(request.url.path, message, [(name, str(said)) for name, said in fields])

        def again() -> Response:
            with suppress(UrbanReidError):  # of the page itself: then the refusal has a page of its own
                visitor = app.state.console.visitors.find(cookie_of(request))
                page = visitor and shown_again(request.scope.get("endpoint"), app.state.console, visitor, form)
                if page:
                    page.status_code = status
                    return page
            return failed(request, message, status)

        return await run_in_threadpool(again)

    @app.exception_handler(UrbanReidError)
    async def refused(request: Request, error: UrbanReidError) -> Response:
        if isinstance(error, StoreUnavailable | CoreUnavailable):
            return await run_in_threadpool(unavailable, request, error)
        status = 403 if isinstance(error, NotAllowed) else 400 if isinstance(error, UsageError) else 503
        return await on_its_form(request, on_page(error), status)

    @app.exception_handler(RequestValidationError)
    async def misspelled(request: Request, error: RequestValidationError) -> Response:
        if all(one["type"] in FAULTS for one in error.errors()):
            return await on_its_form(request, "; ".join(fault(one) for one in error.errors()), 422)
        names = ", ".join(dict.fromkeys(label(str(one["loc"][-1])) for one in error.errors()))
        return await on_its_form(request, _("The address or the form cannot be read: %(names)s.", names=names), 422)

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> Response:
        message = _("There is no such page.") if error.status_code == 404 else told(error.detail)
        return failed(request, message, error.status_code)

    return app
