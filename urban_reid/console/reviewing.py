"""Review: two passages at a time, answers and their undo, and what they change."""

from collections.abc import Sequence
from threading import Lock
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import text

from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized
from pipeline.report.thumbnails import Picture, best, pictures_of
from pipeline.review.agreement import agreements
from pipeline.review.answers import Plan, answer, find_answer, plan_answer, undo
from pipeline.review.changes import Change, read_changes
from pipeline.review.given import answers_given
from pipeline.review.queue import read_queue, second_looks
from pipeline.review.rehearsal import rehearse
from schemas.errors import InputError
from schemas.levels import Level
from schemas.review import Said, Way
from urban_reid.console.context import Asking, Console, Here, Sending, gets
from urban_reid.console.refusals import shown_on
from urban_reid.console.texts import N_
from urban_reid.console.visitors import Visitor

#: Furthest pair of the queue that is led to by page.
_FURTHEST = 500
#: One trial at a time: it holds a thread and the district's locks until a day of it is resolved.
_turn = Lock()

routes = APIRouter(dependencies=[Depends(gets("review"))])

Unit = Annotated[str, Query(max_length=140)]


@routes.get("/review")
def review_page(
    here: Here, found: Asking, unit: Unit = "", n: int = 0, second: bool = False, last: UUID | None = None
) -> HTMLResponse:
    """One pair of the queue: the n-th, most valuable first."""
    unit = _unit(here, found, unit)
    n = min(max(n, 0), _FURTHEST)
    check_authorized(found.store, unit, N_("a review"), Action.REVIEW_SHOW, details={"place": n})
    with found.store.signed_in() as connection:
        read = second_looks if second else read_queue
        items = read(connection, unit, found.name, most=n + 2).items
        n = min(n, max(len(items) - 1, 0))
        item = items[n] if items else None
        pictures = pictures_of(connection, [item.left.tracklet, item.right.tracklet]) if item else {}
    said = find_answer(found.store, str(last)) if last is not None else None
    more = len(items) > n + 1
    values = {"unit": unit, "n": n, "second": second, "item": item, "pictures": pictures, "more": more, "last": said}
    return here.page("review", found, **values)


@routes.post("/review")
@shown_on(review_page)
def say(
    found: Sending,
    left: Annotated[str, Form(max_length=64)],
    right: Annotated[str, Form(max_length=64)],
    said: Annotated[Said, Form()],
    way: Annotated[Way, Form()],
    reason: Annotated[str, Form(min_length=1, max_length=500)],
    unit: Annotated[str, Form(max_length=140)],
    n: Annotated[int, Form()] = 0,
) -> Response:
    done = answer(found.store, left, right, said, reviewer=found.name, reason=reason, way=way)
    second = "&second=true" if way is Way.SECOND else ""
    return RedirectResponse(f"/review?unit={unit}&n={n}&last={done.id}{second}", 303)


@routes.post("/review/undo")
def take_back(
    found: Sending,
    answer_id: Annotated[UUID, Form()],
    unit: Annotated[str, Form(max_length=140)],
    back: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    undo(found.store, str(answer_id), reviewer=found.name, reason="undone on the page of reviews")
    where = f"/review/answers?unit={unit}" if back == "answers" else f"/review?unit={unit}&last={answer_id}"
    return RedirectResponse(where, 303)


@routes.get("/review/answers")
def answers_page(here: Here, found: Asking, unit: Unit = "") -> HTMLResponse:
    """What was answered, and how far reviewers agree."""
    unit = _unit(here, found, unit)
    check_authorized(found.store, unit, N_("a review"), Action.REVIEW_SHOW)
    with found.store.signed_in() as connection:
        given = answers_given(connection, unit, 100)
        agree = agreements(connection, unit)
    return here.page("review-answers", found, unit=unit, given=given, agree=agree)


@routes.get("/review/try")
def try_page(
    here: Here,
    found: Asking,
    left: Annotated[str, Query(max_length=64)],
    right: Annotated[str, Query(max_length=64)],
    said: Said,
    unit: Unit,
) -> HTMLResponse:
    """What an answer would change."""
    plan = plan_answer(found.store, left, right, said)
    return trial_page(here, found, unit, plan, (f"/review?unit={unit}", N_("Back to the pairs")))


def trial_page(here: Console, found: Visitor, unit: str, plan: Plan, back: tuple[str, str]) -> HTMLResponse:
    """What a plan would change. back: address and label of where one came from."""
    if not _turn.acquire(blocking=False):
        raise InputError("somebody tries out an answer now; wait until that is done")
    try:
        model, core = here.searches.in_use(found)
        changes = rehearse(found.store, core, model, plan, reviewer=found.name)
    finally:
        _turn.release()
    return _changes(here, found, unit, changes, said=plan.said, waits=False, is_trial=True, back=back)


@routes.get("/review/changed/{answer_id}")
def changed_page(here: Here, found: Asking, answer_id: UUID) -> HTMLResponse:
    """What has changed since an answer."""
    given = find_answer(found.store, str(answer_id))
    district = given.unit.partition("/")[0]
    check_authorized(found.store, given.unit, N_("a review"), Action.REVIEW_SHOW, details={"answer": str(answer_id)})
    with found.store.signed_in() as connection:
        changes = read_changes(connection, district, given.at)
        pending = "SELECT EXISTS (SELECT FROM watermark WHERE unit = :unit AND dirty_from IS NOT NULL)"
        waits = connection.execute(text(pending), {"unit": district}).scalar_one()
    back = f"/review?unit={district}", N_("Back to the pairs")
    undoes = None if given.undone else answer_id
    said = Said(given.said)
    return _changes(here, found, district, changes, said=said, waits=waits, is_trial=False, back=back, undoes=undoes)


def _changes(
    here: Console,
    found: Visitor,
    unit: str,
    changes: Sequence[Change],
    *,
    said: Said,
    waits: bool,
    is_trial: bool,
    back: tuple[str, str],
    undoes: UUID | None = None,
) -> HTMLResponse:
    firsts = {group.tracklets[0] for one in changes for group in (*one.before, *one.after)}
    with found.store.signed_in() as connection:
        covers: dict[int, Picture] = {t: best(its) for t, its in pictures_of(connection, firsts).items()}
    values = {"unit": unit, "changes": changes, "covers": covers, "said": said.value, "waits": waits}
    values |= {"back": back, "undoes": undoes}
    return here.page("review-changes", found, is_trial=is_trial, **values)


def _unit(here: Console, found: Visitor, unit: str) -> str:
    """The unit that is asked for, else the first one that whoever asks may look at. Raises InputError."""
    city, _ = here.city()
    if unit:
        city.check_unit(unit)
        return unit
    districts = [one.code for one in city.units if one.level is Level.DISTRICT]
    return next((one for one in (*found.grant.units, *districts) if one), "")
