"""The application: routes, and what every answer carries."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import Depends, FastAPI, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.browsing.crops import pictures_of_crops
from pipeline.browsing.journey import read_journey, unit_of
from pipeline.browsing.people import Place, read_people
from pipeline.cameras.overview import STATES, overview
from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from pipeline.governance.sessions import end_session, sign_in
from pipeline.report.unit_counts import read_unit_counts
from pipeline.store import Store
from schemas.city_file import City, unknown_unit
from schemas.errors import InputError, NotAllowed, UrbanReidError, UsageError
from schemas.levels import Level, level_of
from schemas.roles import Role
from urban_reid.console.pages import Pages
from urban_reid.console.pictures import Thumbnails, crop_of
from urban_reid.console.searching import Searches
from urban_reid.console.visitors import COOKIE, Visitor, Visitors

#: Largest picture that is taken for a search, bytes.
_LARGEST_UPLOAD = 20_000_000
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class SignInNeeded(Exception):
    """Nobody is signed in; the answer leads to the page where one signs in."""


def make_app(store: Store, hosts: list[str]) -> FastAPI:
    """The console on a store. `hosts`: names by which it may be called, so that no other site's name leads here."""
    app = FastAPI(title="Urban-ReID console", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    visitors, crops = Visitors(store), CropStore(store.settings)
    thumbnails, searches = Thumbnails(crops), Searches(store.settings)
    pages = Pages()
    app.state.visitors = visitors

    @app.middleware("http")
    async def headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST" and request.headers.get("sec-fetch-site", "same-origin") not in _OWN:
            answer: Response = PlainTextResponse("this form was sent by another site", 403)
        else:
            answer = await go_on(request)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    def visitor(request: Request) -> Visitor:
        found = visitors.find(request.cookies.get(COOKIE, ""))
        if found is None:
            raise SignInNeeded
        return found

    def sender(found: Annotated[Visitor, Depends(visitor)], form_key: Annotated[str, Form()] = "") -> Visitor:
        if form_key != found.form_key:
            raise NotAllowed("this page is too old to be sent; load it again")
        return found

    Asking = Annotated[Visitor, Depends(visitor)]
    Sending = Annotated[Visitor, Depends(sender)]

    def city_of(found: Visitor) -> tuple[City, ZoneInfo]:
        city = read_city(found.store)
        return city, ZoneInfo(city.timezone)

    def page(name: str, found: Visitor, **values: Any) -> HTMLResponse:
        return HTMLResponse(pages.render(name, found, **values))

    @app.exception_handler(SignInNeeded)
    async def to_sign_in(request: Request, _: SignInNeeded) -> Response:
        way = request.url.path if request.method == "GET" else "/"
        return RedirectResponse(f"/sign-in?{urlencode({'to': way})}", 303)

    def failed(message: str, status: int) -> HTMLResponse:
        return HTMLResponse(pages.render("failed", None, message=message, status=status), status)

    @app.exception_handler(UrbanReidError)
    async def refused(_: Request, error: UrbanReidError) -> Response:
        return failed(
            str(error), 403 if isinstance(error, NotAllowed) else 400 if isinstance(error, UsageError) else 503
        )

    @app.exception_handler(RequestValidationError)
    async def misspelled(_: Request, error: RequestValidationError) -> Response:
        names = ", ".join(str(one["loc"][-1]) for one in error.errors())
        return failed(f"The address or the form cannot be read: {names}.", 422)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return failed("There is no such page." if error.status_code == 404 else str(error.detail), error.status_code)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        found = pages.static(name)
        if found is None:
            return PlainTextResponse("there is no such file", 404)
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        return Response(found, media_type=kind, headers={"Cache-Control": "max-age=3600"})

    # ---- coming in and going out

    @app.get("/enter/{key}")
    def enter(key: str) -> Response:
        cookie = visitors.enter(key)
        if cookie is None:
            return failed(
                "This link was used, or is older than ten minutes. Start the console again for a new one.", 403
            )
        return _with_cookie(RedirectResponse("/", 303), cookie)

    @app.get("/sign-in")
    def sign_in_page(to: str = "/") -> HTMLResponse:
        return HTMLResponse(pages.render("sign-in", None, to=to, is_open=visitors.is_open_home(), message=""))

    @app.post("/sign-in")
    def sign_in_now(
        name: Annotated[str, Form()],
        password: Annotated[str, Form()],
        role: Annotated[str, Form()] = "",
        authorization: Annotated[str, Form()] = "",
        to: Annotated[str, Form()] = "/",
    ) -> Response:
        try:
            asked = UUID(authorization) if authorization else None
            token, _ = sign_in(store, name, password, role=Role(role) if role else None, authorization=asked)
            return _with_cookie(RedirectResponse(_own_path(to), 303), token)
        except (NotAllowed, InputError) as error:
            message = str(error)
        except ValueError:
            message = "the role or the id of the authorization is misspelled"
        shown = pages.render("sign-in", None, to=to, is_open=visitors.is_open_home(), message=message)
        return HTMLResponse(shown, 403)

    @app.post("/sign-out")
    def sign_out(found: Sending) -> Response:
        visitors.leave(found.token)
        if not found.grant.is_open:
            end_session(found.store)
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE)
        return answer

    # ---- the city

    @app.get("/")
    def overview_page(found: Asking) -> HTMLResponse:
        city, zone = city_of(found)
        districts = [unit.code for unit in city.units if level_of(unit.code) is Level.DISTRICT]
        with store.begin() as connection:  # counts alone, which need no authorization
            units = [unit for district in districts for unit in read_unit_counts(connection, district)]
            cameras = overview(connection, datetime.now(zone))
        return page("overview", found, city=city, zone=zone, units=units, cameras=cameras, states=STATES)

    @app.get("/people/{unit:path}")
    def people_page(
        found: Asking, unit: str, at: Annotated[datetime | None, Query()] = None, after: Annotated[int, Query()] = 0
    ) -> HTMLResponse:
        city, zone = city_of(found)
        codes = {one.code for one in city.units}
        if unit not in codes:
            raise unknown_unit(unit, codes)
        check_authorized(found.store, unit, "a look at people", Action.PEOPLE_SHOW, details={"after": after})
        with found.store.signed_in() as connection:
            shown = read_people(connection, unit, None if at is None else Place(at, after))
        return page("people", found, city=city, zone=zone, unit=unit, shown=shown)

    @app.get("/person/{identity}")
    def person_page(found: Asking, identity: UUID) -> HTMLResponse:
        city, zone = city_of(found)
        with found.store.signed_in() as connection:
            unit = unit_of(connection, identity)
        details = {"identity": str(identity)}
        check_authorized(found.store, unit, "a look at a journey", Action.PERSON_SHOW, details=details)
        with found.store.signed_in() as connection:
            journey = read_journey(connection, identity, zone)
        return page("person", found, city=city, zone=zone, journey=journey)

    @app.get("/pictures/{name}")
    def picture(found: Asking, name: str) -> Response:
        data = thumbnails.get(name, found)
        if data is None:
            return PlainTextResponse("there is no such picture", 404)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    @app.get("/search")
    def search_page(found: Asking, like: str = "", unit: str = "") -> HTMLResponse:
        city, zone = city_of(found)
        return page("search", found, city=city, zone=zone, like=like, unit=unit, result=None, pictures={})

    @app.post("/search")
    def search_now(
        found: Sending,
        unit: Annotated[str, Form()],
        reason: Annotated[str, Form()],
        upload: UploadFile | None = None,
        like: Annotated[str, Form()] = "",
    ) -> HTMLResponse:
        city, zone = city_of(found)
        crop = crop_of(like, found) if like else ""
        if crop is None:
            raise InputError("that picture is not there any more; choose another one")
        data = upload.file.read(_LARGEST_UPLOAD + 1) if upload is not None else b""
        if len(data) > _LARGEST_UPLOAD:
            raise InputError(f"the picture is larger than {_LARGEST_UPLOAD // 1_000_000} MB")
        result = searches.run(found, unit=unit, reason=reason, crop=crop, picture=data)
        with found.store.signed_in() as connection:
            pictures = pictures_of_crops(connection, [one.key for hit in result.hits for one in hit.crops])
        values = {"city": city, "zone": zone, "like": like, "unit": unit, "result": result, "pictures": pictures}
        return page("search", found, **values)

    return app


_OWN = ("same-origin", "none")


def _with_cookie(answer: Response, cookie: str) -> Response:
    answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict")
    return answer


def _own_path(path: str) -> str:
    """A path of this site, whatever was sent."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
