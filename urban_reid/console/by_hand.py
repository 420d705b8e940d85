"""By hand: passages are taken out of a person, and two people joined. Both are answers, as on the page of reviews."""

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from pipeline.browsing.people import Place, read_people
from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from pipeline.review.answers import Plan, give, plan_merge, plan_split
from pipeline.review.passages import passages_by_id
from schemas.errors import InputError
from schemas.parameters import ApprovalParameters
from urban_reid.console.context import Asking, Console, Here, Sending, gets
from urban_reid.console.forms import checked
from urban_reid.console.looking import check_may_look, look_at_journey
from urban_reid.console.refusals import shown_on
from urban_reid.console.reviewing import trial_page
from urban_reid.console.texts import N_
from urban_reid.console.visitors import Visitor

routes = APIRouter(dependencies=[Depends(gets("review"))])

Reason = Annotated[str, Form(max_length=500)]
#: Whether what is asked for is tried out, or said.
Act = Annotated[Literal["try", "say"], Form()]


@routes.get("/review/split/{identity}")
def split_page(
    here: Here, found: Asking, identity: UUID, taken: Annotated[list[int] | None, Query()] = None
) -> HTMLResponse:
    """All passages to choose from. taken: ids of tracklets that were chosen before."""
    return here.page("split", found, journey=look_at_journey(here, found, identity), taken=taken or [])


@routes.post("/review/split/{identity}")
@shown_on(split_page)
def split(
    here: Here,
    found: Sending,
    identity: UUID,
    act: Act,
    taken: Annotated[list[int] | None, Form()] = None,
    reason: Reason = "",
) -> Response:
    """taken: ids of the tracklets that are taken out."""
    if not taken:
        raise InputError("choose the passages that show somebody else")
    check_may_look(found, N_("a review"))
    with found.store.signed_in() as connection:
        passages = passages_by_id(connection, taken)
    if len(passages) < len(set(taken)):
        raise InputError("these passages have changed meanwhile; load the page again")
    plan = plan_split(found.store, str(identity), [one.key.hex() for one in passages.values()])
    chosen = urlencode([("taken", one) for one in taken])
    return _done(here, found, plan, act, reason, f"/review/split/{identity}?{chosen}")


@routes.get("/review/merge/{identity}")
def merge_page(
    here: Here,
    found: Asking,
    identity: UUID,
    other: UUID | None = None,
    at: Annotated[datetime | None, Query()] = None,
    after: int = 0,
) -> HTMLResponse:
    """Everybody of the person's place to choose from; with `other`, both beside each other."""
    one = look_at_journey(here, found, identity)
    if other is not None:
        return here.page("merge", found, one=one, other=look_at_journey(here, found, other), shown=None)
    check_authorized(found.store, one.unit, N_("a look at people"), Action.PEOPLE_SHOW, details={"after": after})
    with found.store.signed_in() as connection:
        shown = read_people(connection, one.unit, None if at is None else Place(at, after))
    return here.page("merge", found, one=one, other=None, shown=shown)


@routes.post("/review/merge/{identity}")
@shown_on(merge_page)
def merge(
    here: Here, found: Sending, identity: UUID, other: Annotated[UUID, Form()], act: Act, reason: Reason = ""
) -> Response:
    plan = plan_merge(found.store, str(identity), str(other))
    return _done(here, found, plan, act, reason, f"/review/merge/{identity}?other={other}")


def _done(here: Console, found: Visitor, plan: Plan, act: str, reason: str, back: str) -> Response:
    """What the plan would change, or what it has changed once it is said. back: where one came from."""
    if act == "try":
        return trial_page(here, found, plan.unit, plan, (back, N_("Back to the choice")))
    approval = checked(ApprovalParameters, operator=found.name, reason=reason)
    done = give(found.store, plan, reviewer=approval.operator, reason=approval.reason)
    return RedirectResponse(f"/review/changed/{done.id}", 303)
