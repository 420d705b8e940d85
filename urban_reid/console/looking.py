"""People, journeys, pictures and searches."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from pipeline.browsing.crops import pictures_of_crops
from pipeline.browsing.journey import read_journey, unit_of
from pipeline.browsing.people import Place, read_people
from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from schemas.city_file import unknown_unit
from schemas.errors import InputError
from urban_reid.console.context import Asking, Here, Sending
from urban_reid.console.pictures import crop_of

#: Largest picture that is taken for a search, bytes.
LARGEST_UPLOAD = 20_000_000

routes = APIRouter()


@routes.get("/people/{unit:path}")
def people_page(
    here: Here, found: Asking, unit: str, at: Annotated[datetime | None, Query()] = None, after: int = 0
) -> HTMLResponse:
    codes = {one.code for one in here.city()[0].units}
    if unit not in codes:
        raise unknown_unit(unit, codes)
    check_authorized(found.store, unit, "a look at people", Action.PEOPLE_SHOW, details={"after": after})
    with found.store.signed_in() as connection:
        shown = read_people(connection, unit, None if at is None else Place(at, after))
    return here.page("people", found, unit=unit, shown=shown)


@routes.get("/person/{identity}")
def person_page(here: Here, found: Asking, identity: UUID) -> HTMLResponse:
    with found.store.signed_in() as connection:
        unit = unit_of(connection, identity)
    details = {"identity": str(identity)}
    check_authorized(found.store, unit, "a look at a journey", Action.PERSON_SHOW, details=details)
    with found.store.signed_in() as connection:
        journey = read_journey(connection, identity, here.city()[1])
    return here.page("person", found, journey=journey)


@routes.get("/pictures/{name}")
def picture(here: Here, found: Asking, name: str) -> Response:
    data = here.thumbnails.get(name, found)
    if data is None:
        return PlainTextResponse("there is no such picture", 404)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


@routes.get("/search")
def search_page(here: Here, found: Asking, like: str = "", unit: str = "") -> HTMLResponse:
    return here.page("search", found, like=like, unit=unit, result=None, pictures={})


@routes.post("/search")
def search_now(
    here: Here,
    found: Sending,
    unit: Annotated[str, Form()],
    reason: Annotated[str, Form()],
    upload: UploadFile | None = None,
    like: Annotated[str, Form()] = "",
) -> HTMLResponse:
    crop = crop_of(like, found) if like else ""
    if crop is None:
        raise InputError("that picture is not there any more; choose another one")
    data = upload.file.read(LARGEST_UPLOAD + 1) if upload is not None else b""
    if len(data) > LARGEST_UPLOAD:
        raise InputError(f"the picture is larger than {LARGEST_UPLOAD // 1_000_000} MB")
    result = here.searches.run(found, unit=unit, reason=reason, crop=crop, picture=data)
    with found.store.signed_in() as connection:
        pictures = pictures_of_crops(connection, [one.key for hit in result.hits for one in hit.crops])
    return here.page("search", found, like=like, unit=unit, result=result, pictures=pictures)
