"""Coming in and going out."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import SecretStr

from pipeline.governance.sessions import end_session, sign_in
from schemas.errors import InputError, NotAllowed
from schemas.roles import Role
from urban_reid.console.context import Console, Here, Sending
from urban_reid.console.refusals import on_page
from urban_reid.console.texts import _
from urban_reid.console.visitors import cookie_name, cookie_of

routes = APIRouter()


@routes.get("/enter/{key}")
def enter(request: Request, here: Here, key: str) -> Response:
    cookie = here.visitors.enter(key)
    if cookie is None:
        raise NotAllowed("this link was used, or is older than ten minutes; start the console again")
    return _with_cookie(request, here, RedirectResponse("/", 303), cookie)


@routes.get("/sign-in")
def sign_in_page(here: Here, to: str = "/", authorization: str = "") -> HTMLResponse:
    return _page(here, to, authorization)


@routes.post("/sign-in")
def sign_in_now(
    request: Request,
    here: Here,
    name: Annotated[str, Form()],
    password: Annotated[str, Form()],
    role: Annotated[str, Form()] = "",
    authorization: Annotated[str, Form()] = "",
    to: Annotated[str, Form()] = "/",
) -> Response:
    try:
        under = UUID(authorization) if authorization else None
    except ValueError:
        whole = _("write the whole id of the authorization, 36 characters, as its page shows it")
        return _page(here, to, authorization, whole, name)
    try:
        token, _session = sign_in(here.store, name, password, role=Role(role) if role else None, authorization=under)
    except (NotAllowed, InputError) as error:
        return _page(here, to, authorization, on_page(error), name)
    except ValueError:
        return _page(here, to, authorization, _("there is no role %(role)s", role=role[:40]), name)
    return _with_cookie(request, here, RedirectResponse(_own_path(to), 303), token)


@routes.post("/sign-out")
def sign_out(request: Request, here: Here, found: Sending) -> Response:
    _leave(here, found.token)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(
        cookie_name(request.url), secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )
    return answer


def _page(here: Console, to: str, authorization: str, message: str = "", name: str = "") -> HTMLResponse:
    is_open = here.visitors.is_open_home()
    values = {"to": to, "authorization": authorization, "is_open": is_open, "message": message, "typed": name}
    return HTMLResponse(here.pages.render("sign-in", None, **values), 403 if message else 200)


def _leave(here: Console, cookie: str) -> None:
    """Ends what a cookie stood for, with a row of the audit if that was a session."""
    here.visitors.leave(cookie)
    here.searches.offered.forget(cookie)
    end_session(here.store.under(SecretStr(cookie)))


def _with_cookie(request: Request, here: Console, answer: Response, cookie: str) -> Response:
    """The answer with a cookie, in place of one that nobody could use or end any more."""
    if before := cookie_of(request):
        _leave(here, before)
    is_tls = request.url.scheme == "https"
    answer.set_cookie(cookie_name(request.url), cookie, httponly=True, samesite="strict", secure=is_tls)
    return answer


def _own_path(path: str) -> str:
    """A path of this site, whatever was sent."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
