"""Cameras: what they see, how they fare; added, tried, paused."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import cv2
from fastapi import APIRouter, Depends, Form
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from pipeline.cameras.changes import Wanted, add_cameras, find_feed, pause_camera
from pipeline.cameras.live_client import read_live
from pipeline.cameras.rows import read_feeds
from pipeline.cameras.secrets import check_host, secret_names
from pipeline.cameras.trial import Trial
from pipeline.crops.privacy import shows_people, without_faces
from pipeline.governance.audit import Action, working_under
from pipeline.governance.doors import check_authorized, check_role
from schemas.errors import InputError, UrbanReidError, UsageError
from schemas.feeds import Feed
from schemas.parameters import ApprovalParameters
from schemas.roles import Role
from urban_reid.console.context import Asking, Console, Here, Sending, gets
from urban_reid.console.forms import checked
from urban_reid.console.overview import camera_contents
from urban_reid.console.refusals import on_page, shown_on
from urban_reid.console.texts import N_, _, told
from urban_reid.console.visitors import Visitor

routes = APIRouter()

_ENGINEERS = (Role.ENGINEER,)


@routes.get("/cameras")
def cameras_page(here: Here, found: Annotated[Visitor, Depends(gets("cameras"))]) -> HTMLResponse:
    return _page(here, found)


@routes.get("/cameras/{camera:path}/picture")
def picture(here: Here, found: Asking, camera: str) -> Response:
    """What the camera sees now, without faces, from the process that looks at it."""
    _check_look(found, camera)
    try:
        data = read_live(here.store.settings, camera)
    except InputError as error:
        return PlainTextResponse(told(str(error)), 404)
    if data is None:
        return PlainTextResponse(_("the process that looks at the cameras does not run"), 404)
    return Response(data, media_type="image/jpeg")


@routes.get("/cameras/{camera:path}/tried")
def tried_picture(here: Here, found: Asking, camera: str) -> Response:
    """What the last trial saw, without faces; the camera is not opened again."""
    _check_look(found, camera)
    trial = here.trials.kept(camera)
    if trial is None:
        return PlainTextResponse(_("there is no such picture"), 404)
    with here.store.begin() as connection:
        part = without_faces(trial.part) if shows_people(connection) else trial.part
    done, encoded = cv2.imencode(".jpg", part)
    assert done
    return Response(encoded.tobytes(), media_type="image/jpeg")


def _check_look(found: Visitor, camera: str) -> None:
    check_authorized(found.store, camera, N_("a camera's picture"), Action.CAMERA_LOOK, at=datetime.now(UTC))


@routes.post("/cameras")
@shown_on(cameras_page)
def add(
    here: Here,
    found: Sending,
    camera: Annotated[str, Form()],
    address: Annotated[str, Form()],
    name: Annotated[str, Form()] = "",
    sign_in: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """Adds a camera and tries it at once. In a home with people of real cameras only streams, never files."""
    check_role(found.store, _ENGINEERS, N_("adding a camera"))
    feed = checked(Feed, camera=camera.strip(), address=address.strip(), secret=sign_in or None)
    if feed.kind != "stream" and not found.grant.is_open:
        raise UsageError("here a camera is a stream, rtsp://host:port/path; `urban-reid cameras add` takes in files")
    with here.store.begin() as connection:
        feeds = read_feeds(connection)
    if not found.grant.is_open:
        check_host(feed, here.store.settings, feeds)
    with _acting(found):
        fields = {"name": name.strip()} if name.strip() else {}
        add_cameras(here.store, [Wanted(feed, fields)], operator=found.name)
    return _page(here, found, tried=_try(here, feed))


@routes.post("/cameras/try")
@shown_on(cameras_page)
def try_now(here: Here, found: Sending, camera: Annotated[str, Form()]) -> HTMLResponse:
    check_role(found.store, _ENGINEERS, N_("trying a camera"))
    return _page(here, found, tried=_try(here, find_feed(here.store, camera)))


@routes.post("/cameras/pause")
@shown_on(cameras_page)
def pause(
    here: Here,
    found: Sending,
    camera: Annotated[str, Form()],
    paused: Annotated[bool, Form()],
    reason: Annotated[str, Form()],
) -> Response:
    check_role(found.store, _ENGINEERS, N_("pausing a camera"))
    approval = checked(ApprovalParameters, operator=found.name, reason=reason)
    with _acting(found):
        pause_camera(here.store, camera, paused=paused, operator=approval.operator, reason=approval.reason)
    return RedirectResponse("/cameras", 303)


@dataclass(frozen=True)
class Tried:
    """What a trial of a camera gave: a frame, or why there is none."""

    camera: str
    trial: Trial | None
    fault: str = ""


def _try(here: Console, feed: Feed) -> Tried:
    try:
        return Tried(feed.camera, here.trials.look(feed))
    except InputError as error:
        return Tried(feed.camera, None, on_page(error))


def _page(here: Console, found: Visitor, tried: Tried | None = None) -> HTMLResponse:
    try:
        secrets = secret_names(here.store.settings)
    except UrbanReidError:  # of the file of secrets, which `urban-reid cameras secret list` tells of
        secrets = []
    changes = found.grant.is_open or found.grant.role in _ENGINEERS
    values = camera_contents(here) | {"tried": tried, "secrets": secrets, "changes": changes}
    return here.page("cameras", found, **values)


@contextlib.contextmanager
def _acting(found: Visitor) -> Iterator[None]:
    """What is changed within has whoever is signed in as its actor in the audit."""
    with contextlib.nullcontext() if found.grant.is_open else working_under(found.token):
        yield
