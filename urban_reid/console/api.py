"""The API: what the pages show, as JSON, for programs with a token. Its description is at /api/openapi.json."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException

from pipeline.browsing.people import Place, read_people
from pipeline.cameras.overview import overview
from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from pipeline.governance.leads import leads
from pipeline.report.thumbnails import Picture
from schemas.errors import CityError, InputError, NotAllowed, UrbanReidError, UsageError
from schemas.parameters import SearchResult
from urban_reid.console.api_models import (
    CameraOut,
    CityOut,
    Fault,
    JourneyOut,
    LeadOut,
    Me,
    PeopleOut,
    city_out,
    journey_out,
    people_out,
)
from urban_reid.console.context import Console, Here
from urban_reid.console.forms import LARGEST_UPLOAD
from urban_reid.console.limits import Limit
from urban_reid.console.looking import look_at_journey
from urban_reid.console.pictures import address
from urban_reid.console.visitors import Visitor

#: Requests and searches of one token.
_REQUESTS, _SEARCHES = Limit(20, 60), Limit(0.5, 5)
_SCHEME = HTTPBearer(auto_error=False, description="a token of `urban-reid tokens add`, whose role is its scope")
_FAULTS = {400, 401, 403, 404, 413, 422, 429, 503}


class _TokenNeeded(Exception):
    """There is no token, or it does not hold."""


class _TooOften(Exception):
    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


def _asking(here: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]) -> Visitor:
    token = given.credentials if given else ""
    found = here.visitors.find(token) if re.fullmatch("[0-9a-f]{64}", token) else None
    if found is None:
        raise _TokenNeeded
    if wait_s := _REQUESTS.wait_s(token):
        raise _TooOften(wait_s)
    return found


Asking = Annotated[Visitor, Depends(_asking)]


def make_api(console: Console) -> FastAPI:
    """The API on a console, to be mounted at /api."""
    api = FastAPI(
        title="Urban-ReID",
        version="1",
        description="What an operator's token may see of the city. A hit is a lead, not an identification.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses={status: {"model": Fault} for status in sorted(_FAULTS)},
    )
    api.state.console = console
    _routes(api)
    _faults(api)
    return api


def _routes(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    def description(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/openapi.json", 307)

    @api.get("/me")
    def me(found: Asking) -> Me:
        """What the token stands for."""
        return Me.of(found.name, found.grant)

    @api.get("/city")
    def city(here: Here, _: Asking) -> CityOut:
        """The units with their counts."""
        return city_out(here.city()[0], here.counting.now())

    @api.get("/cameras")
    def cameras(here: Here, _: Asking) -> list[CameraOut]:
        """The cameras that are looked at all the time, and how they fare."""
        with here.store.begin() as connection:
            return [CameraOut.of(one) for one in overview(connection, datetime.now(UTC))]

    @api.get("/people")
    def people(
        here: Here,
        found: Asking,
        unit: Annotated[str, Query(max_length=131)],
        at: AwareDatetime | None = None,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    ) -> PeopleOut:
        """A page of a unit's people, the last seen first. `at`, `after`: the `next_at` and `next_after` of a page."""
        try:
            here.city()[0].check_unit(unit)
        except CityError as error:
            raise HTTPException(404, str(error)) from None
        check_authorized(found.store, unit, "a look at people", Action.PEOPLE_SHOW, details={"after": after})
        with found.store.signed_in(only_reads=True) as connection:
            return people_out(read_people(connection, unit, None if at is None else Place(at, after)), _path(found))

    @api.get("/people/{identity}")
    def journey(here: Here, found: Asking, identity: UUID) -> JourneyOut:
        """The journey of one identity: its passages in the order of time, and why they were put together."""
        try:
            return journey_out(look_at_journey(here, found, identity), _path(found))
        except InputError as error:
            raise HTTPException(404, str(error)) from None

    @api.get("/pictures/{name}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    def picture(here: Here, found: Asking, name: str) -> Response:
        """A picture whose path another answer gave to this token, as JPEG."""
        data = here.thumbnails.get(name, found)
        if data is None:
            raise HTTPException(404, "there is no such picture")
        return Response(data, media_type="image/jpeg")

    @api.post("/searches")
    def search(
        here: Here,
        found: Asking,
        unit: Annotated[str, Form(max_length=131)],
        reason: Annotated[str, Form(max_length=500)],
        picture: Annotated[
            list[UploadFile],
            File(max_length=6, description="pictures of one person, whole and upright, in JPEG, PNG, WebP or BMP"),
        ] = [],  # noqa: B006
        attributes: Annotated[
            str, Form(max_length=500, description="what the person wears and carries: red top, long trousers, no hat")
        ] = "",
        evidence: Annotated[bool, Form(description="whether to state what is merged with other databases")] = False,
    ) -> SearchResult:
        """The identities of a unit that look most like the person in pictures. The reason is written to the audit.

        With attributes, those of them who show these, or of whom nothing is known. Without a picture, a list of people
        who show them, without distances and probabilities.
        """
        if wait_s := _SEARCHES.wait_s(found.token):
            raise _TooOften(wait_s)
        sent = [one.file.read(LARGEST_UPLOAD + 1) for one in picture]
        if any(len(data) > LARGEST_UPLOAD for data in sent):
            raise HTTPException(413, f"a picture is larger than {LARGEST_UPLOAD // 1_000_000} MB")
        sent = [here.searches.whole(data, found) for data in sent]
        result = here.searches.run(found, sent=sent, unit=unit, reason=reason, attributes=attributes)[1]
        return result if evidence else result.model_copy(update={"evidence": None})

    @api.get("/leads")
    def leads_(found: Asking) -> list[LeadOut]:
        """The leads of the token's authorization, in no order."""
        return [
            LeadOut(lead=one.id, unit=one.unit, asked_by=one.asked_by, verdict=one.verdict, own_answer=one.own_answer)
            for one in leads(found.store)
        ]


def _path(found: Visitor) -> Callable[[Picture], str]:
    """Gives the path of a picture for one visitor."""
    return lambda one: f"/api{address(one, found, 320)}"


def _fault(status: int, message: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


def token_needed() -> JSONResponse:
    """The answer to whoever has no token that holds."""
    says = "a token is needed: `urban-reid tokens add NAME` makes one, sent as `Authorization: Bearer TOKEN`"
    return _fault(401, says, **{"WWW-Authenticate": "Bearer"})


def fault_of(error: UrbanReidError) -> JSONResponse:
    """The answer to a program whose request could not be carried out."""
    theirs = 400 if isinstance(error, UsageError | InputError) else 503
    return _fault(403 if isinstance(error, NotAllowed) else theirs, str(error))


def _faults(api: FastAPI) -> None:
    @api.exception_handler(_TokenNeeded)
    async def no_token(*_: object) -> Response:
        return token_needed()

    @api.exception_handler(_TooOften)
    async def too_often(_: Request, error: _TooOften) -> Response:
        seconds = max(1, round(error.wait_s + 0.5))
        return _fault(429, f"asked too often; wait {seconds} s", **{"Retry-After": str(seconds)})

    @api.exception_handler(UrbanReidError)
    async def refused(_: Request, error: UrbanReidError) -> Response:
        return fault_of(error)

    @api.exception_handler(RequestValidationError)
    async def misspelled(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _fault(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @api.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return _fault(error.status_code, str(error.detail), **(error.headers or {}))
