"""Cases, authorizations and leads: who asks, who approves, and the two who confirm."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from pipeline.crops.crop_store import CropStore
from pipeline.governance import authorizations
from pipeline.governance.authorizations import Opens
from pipeline.governance.leads import answer_lead, lead_picture, leads, see_lead
from pipeline.governance.purposes import limits, purposes
from schemas.parameters import AuditText, AuthorizationParameters, CaseParameters
from urban_reid.console.context import Asking, Here, Sending
from urban_reid.console.forms import checked, moment
from urban_reid.console.pictures import media_type
from urban_reid.console.refusals import shown_on

routes = APIRouter()
#: Cases on a page.
_A_PAGE = 50

Reason = Annotated[AuditText, Form(max_length=500)]


@routes.get("/cases")
def cases_page(here: Here, found: Asking, before: UUID | None = None) -> HTMLResponse:
    waiting = authorizations.pending(found.store)
    cases = authorizations.cases(found.store, before, _A_PAGE + 1)
    following = cases[_A_PAGE - 1].id if len(cases) > _A_PAGE else None
    return here.page("cases", found, cases=cases[:_A_PAGE], next=following, waiting=waiting)


@routes.post("/cases")
@shown_on(cases_page)
def open_case(found: Sending, name: Annotated[str, Form()], reason: Reason) -> Response:
    named = checked(CaseParameters, name=name).name
    return _to(f"/cases/{authorizations.open_case(found.store, named, reason=reason)}")


@routes.get("/cases/{case}")
def case_page(here: Here, found: Asking, case: UUID) -> HTMLResponse:
    row, asked = authorizations.show_case(found.store, str(case))
    names = [one.name for one in purposes(found.store) if one.retired_at is None]
    return here.page("case", found, case=row, asked=asked, purposes=names, limits=limits(found.store))


@routes.post("/cases/{case}/ask")
@shown_on(case_page)
def ask(
    here: Here,
    found: Sending,
    case: UUID,
    purpose: Annotated[str, Form()],
    legal_basis: Annotated[str, Form()],
    sought: Annotated[str, Form()],
    units: Annotated[list[str], Form()],
    from_time: Annotated[str, Form()],
    to_time: Annotated[str, Form()],
    expires: Annotated[str, Form()],
    kind: Annotated[str, Form()] = "search",
) -> Response:
    zone = here.city()[1]
    asked = checked(
        AuthorizationParameters,
        kind=kind,
        purpose=purpose,
        legal_basis=legal_basis,
        sought=sought,
        units=tuple(units),
        from_time=moment(from_time, zone),
        to_time=moment(to_time, zone),
        expires_at=moment(expires, zone),
    )
    return _to(f"/authorizations/{authorizations.ask(found.store, str(case), asked)}")


@routes.post("/cases/{case}/close")
@shown_on(case_page)
def close(found: Sending, case: UUID, reason: Reason) -> Response:
    authorizations.close_case(found.store, str(case), reason=reason)
    authorizations.lock_overdue(found.store)
    return _to(f"/cases/{case}")


@routes.get("/authorizations/{authorization}")
def authorization_page(here: Here, found: Asking, authorization: UUID) -> HTMLResponse:
    row, opens = authorizations.what_it_opens(found.store, str(authorization))
    return here.page("authorization", found, one=row, opens=opens)


@routes.post("/authorizations/{authorization}/approve")
@shown_on(authorization_page)
def approve(
    found: Sending,
    authorization: UUID,
    reason: Reason,
    crops: Annotated[int, Form()],
    cameras: Annotated[int, Form()],
    identities: Annotated[int, Form()],
) -> Response:
    """The counts are those that the page showed: they are written beside the approval."""
    seen = Opens(crops=crops, cameras=cameras, identities=identities)
    return _to(f"/authorizations/{authorizations.approve(found.store, str(authorization), seen, reason=reason)}")


@routes.post("/authorizations/{authorization}/refuse")
@shown_on(authorization_page)
def refuse(found: Sending, authorization: UUID, reason: Reason) -> Response:
    authorizations.refuse(found.store, str(authorization), reason=reason)
    authorizations.lock_overdue(found.store)
    return _to(f"/authorizations/{authorization}")


@routes.post("/authorizations/{authorization}/revoke")
@shown_on(authorization_page)
def revoke(found: Sending, authorization: UUID, reason: Reason) -> Response:
    authorizations.revoke(found.store, str(authorization), reason=reason)
    authorizations.lock_overdue(found.store)
    return _to(f"/authorizations/{authorization}")


@routes.get("/leads")
def leads_page(here: Here, found: Asking) -> HTMLResponse:
    return here.page("leads", found, leads=leads(found.store))


@routes.get("/leads/{lead}")
def lead_page(here: Here, found: Asking, lead: UUID) -> HTMLResponse:
    row = see_lead(found.store, str(lead))
    return here.page("lead", found, one=row)


@routes.get("/leads/{lead}/{side}")
def lead_picture_of(here: Here, found: Asking, lead: UUID, side: Literal["sought", "found"]) -> Response:
    data = lead_picture(found.store, CropStore(here.store.settings), lead, side)
    return Response(data, media_type=media_type(data))


@routes.post("/leads/{lead}")
@shown_on(lead_page)
def answer(found: Sending, lead: UUID, same: Annotated[bool, Form()], reason: Reason) -> Response:
    answer_lead(found.store, str(lead), is_same=same, reason=reason)
    return _to("/leads")


def _to(path: str) -> Response:
    return RedirectResponse(path, 303)
