"""Review: two passages at a time, answers and their undo, and what they change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from threading import Lock
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Header, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Connection, text

from pipeline.governance.audit import Action
from pipeline.governance.doors import check_authorized, check_role
from pipeline.report.thumbnails import Picture, best, pictures_of
from pipeline.review.agreement import agreements, disputes
from pipeline.review.answers import Plan, find_answer, give, hindrances, plan_answer, plan_follow, undo, would_hinder
from pipeline.review.changes import Change, read_changes
from pipeline.review.company import brings_many, companies
from pipeline.review.given import answers_given
from pipeline.review.in_the_way import Hindrances
from pipeline.review.queue import Item, Place, read_queue, second_looks, tracklet_of
from pipeline.review.rehearsal import rehearse, rehearse_undo
from schemas.errors import InputError
from schemas.levels import Level
from schemas.parameters import ApprovalParameters
from schemas.review import Said, Way
from schemas.roles import Role
from urban_reid.console.context import Asking, Console, Here, Sending, gets
from urban_reid.console.forms import checked
from urban_reid.console.looking import look_at_journey
from urban_reid.console.refusals import shown_on
from urban_reid.console.texts import N_
from urban_reid.console.visitors import Visitor

#: Of so many pairs that are shown one is somebody else's, whose answer is not told; and how its place is marked.
_SHARE, _SECOND = 10, "!"
#: Answers on a page.
_A_PAGE = 100
#: Most pairs of which two say another thing that are shown.
_DISPUTED = 20
#: Most passages of each of two people that are shown before they are joined.
_SHOWN = 24
#: One trial at a time: it holds a thread and the district's locks until a day of it is resolved.
_turn = Lock()

routes = APIRouter(dependencies=[Depends(gets("review"))])

Unit = Annotated[str, Query(max_length=140)]
Where = Annotated[str, Query(max_length=200)]
#: Whether a script asks, which has the page and wants the part that says what was done.
IsPart = Annotated[bool, Header(alias="x-part")]


@routes.get("/review")
def review_page(
    here: Here,
    found: Asking,
    unit: Unit = "",
    after: Where = "",
    before: Where = "",
    last: UUID | None = None,
) -> HTMLResponse:
    """One pair: the first of the queue, or the next one after or before a place of it."""
    unit = _unit(here, found, unit)
    check_authorized(found.store, unit, N_("a review"), Action.REVIEW_SHOW)
    with found.store.signed_in() as connection:
        shown = _pair(connection, unit, found.name, after, before)
        item = shown.item
        pictures = pictures_of(connection, [item.left.tracklet, item.right.tracklet]) if item else {}
    values = vars(shown) | {"unit": unit, "pictures": pictures, "after": after, "before": before}
    values |= {"sees_agreement": _sees_agreement(found)} | _last(found, last)
    return here.page("review", found, **values)


@dataclass(frozen=True)
class _Shown:
    item: Item | None
    place: str  # what comes next comes after it
    more: bool
    has_before: bool


def _pair(connection: Connection, unit: str, reviewer: str, after: str, before: str) -> _Shown:
    """The pair to show. Before some of the queue's pairs comes one that somebody else has answered, once each."""
    if before:
        items = read_queue(connection, unit, reviewer, _place(before), most=2, back=True).items
        if items:
            return _Shown(items[0], str(items[0].place), True, len(items) > 1)
        after = ""
    items = read_queue(connection, unit, reviewer, _place(after), most=2).items
    if not items:
        return _Shown(None, after, False, bool(after))
    drawn = sha256(f"{reviewer} {items[0].place.ref}".encode()).digest()[0] * _SHARE < 256
    if drawn and not after.endswith(_SECOND) and (looks := second_looks(connection, unit, reviewer, most=1).items):
        return _Shown(looks[0], after + _SECOND, True, bool(after))
    return _Shown(items[0], str(items[0].place), len(items) > 1, bool(after))


def _place(told: str) -> Place | None:
    told = told.removesuffix(_SECOND)
    return Place.parse(told) if told else None


@routes.post("/review")
@shown_on(review_page)
def say(
    here: Here,
    found: Sending,
    left: Annotated[str, Form(max_length=64)],
    right: Annotated[str, Form(max_length=64)],
    said: Annotated[Said, Form()],
    way: Annotated[Way, Form()],
    reason: Annotated[str, Form(min_length=1, max_length=500)],
    unit: Annotated[str, Form(max_length=140)],
    place: Annotated[str, Form(max_length=200)] = "",
    after: Annotated[str, Form(max_length=200)] = "",
    before: Annotated[str, Form(max_length=200)] = "",
    sure: Annotated[bool, Form()] = False,
    is_part: IsPart = False,
) -> Response:
    """sure: whoever answers was shown whom a `same` joins, where that are many (`_joined_by`)."""
    approval = checked(ApprovalParameters, operator=found.name, reason=reason)
    plan = plan_answer(found.store, left, right, said, way)
    if said is Said.SAME and not sure and (people := _joined_by(found, plan)):
        if is_part:
            raise InputError("that joins two people of many passages each: go back one pair, and look at them first")
        one, other = (look_at_journey(here, found, person) for person in people)
        sent_on = {"left": left, "right": right, "way": way.value, "reason": reason, "unit": unit, "place": place}
        back = f"/review?{urlencode({'unit': unit, 'after': after, 'before': before})}"
        values = {"sent_on": sent_on.items(), "back": back, "most": _SHOWN}
        return here.page("review-sure", found, unit=unit, one=one, other=other, **values)
    done = give(found.store, plan, reviewer=approval.operator, reason=approval.reason)
    return _said(here, found, unit, done.id, {"after": place}, is_part)


def _joined_by(found: Visitor, plan: Plan) -> tuple[UUID, UUID] | None:
    """Both people whom a `same` of two passages joins, if each of them has many passages."""
    ((one, other),) = plan.pairs
    with found.store.signed_in() as connection:
        ids = [tracklet_of(connection, passage.key) for passage in (one, other)]
        held = companies(connection, [id_ for id_ in ids if id_ is not None])
    left, right = (held.get(id_) if id_ is not None else None for id_ in ids)
    return (left.person, right.person) if left and right and brings_many(left, right) else None


@routes.post("/review/undo")
def take_back(
    here: Here,
    found: Sending,
    answer_id: Annotated[UUID, Form()],
    unit: Annotated[str, Form(max_length=140)],
    back: Annotated[str, Form(max_length=20)] = "",
    is_part: IsPart = False,
) -> Response:
    undo(found.store, str(answer_id), reviewer=found.name, reason="undone on the page of reviews")
    if back == "answers":
        return RedirectResponse(f"/review/answers?{urlencode({'unit': unit})}", 303)
    return _said(here, found, unit, answer_id, {}, is_part)


@routes.post("/review/follow")
def follow(found: Sending, answer_id: Annotated[UUID, Form()], other: Annotated[str, Form(max_length=64)]) -> Response:
    """Says of the passage that stands in the way of an answer that it is somebody else."""
    plan = plan_follow(found.store, str(answer_id), other)
    give(found.store, plan, reviewer=found.name, reason=f"stands in the way of answer {str(answer_id)[:8]}")
    return RedirectResponse(f"/review/changed/{answer_id}", 303)


def _said(here: Console, found: Visitor, unit: str, answer: UUID, where: dict[str, str], is_part: bool) -> Response:
    """The page after an answer or its undo, or the part of it that says so, for a script that has the page."""
    if is_part:
        return here.page("review-said", found, unit=unit, **_last(found, answer))
    return RedirectResponse(f"/review?{urlencode({'unit': unit, 'last': answer} | where)}", 303)


def _last(found: Visitor, answer: UUID | None) -> dict[str, object]:
    if answer is None:
        return {"last": None, "hindrances": None}
    return {"last": find_answer(found.store, str(answer)), "hindrances": hindrances(found.store, str(answer))}


@routes.get("/review/answers")
def answers_page(
    here: Here, found: Asking, unit: Unit = "", at: datetime | None = None, before: UUID | None = None
) -> HTMLResponse:
    """What was answered. at, before: of the answer after which the page begins."""
    unit = _unit(here, found, unit)
    check_authorized(found.store, unit, N_("a review"), Action.REVIEW_SHOW)
    with found.store.signed_in() as connection:
        given = answers_given(connection, unit, _A_PAGE + 1, before=(at, before) if at and before else None)
    last = given[_A_PAGE - 1] if len(given) > _A_PAGE else None
    following = last and f"/review/answers?{urlencode({'unit': unit, 'at': last.at.isoformat(), 'before': last.id})}"
    return here.page("review-answers", found, unit=unit, given=given[:_A_PAGE], next=following)


@routes.get("/review/agreement")
def agreement_page(here: Here, found: Asking, unit: Unit = "") -> HTMLResponse:
    """How far reviewers agree, and of which pairs two say another thing; for supervisors."""
    check_role(found.store, (Role.SUPERVISOR,), N_("how far reviewers agree"))
    unit = _unit(here, found, unit)
    check_authorized(found.store, unit, N_("a review"), Action.REVIEW_SHOW)
    with found.store.signed_in() as connection:
        agree = agreements(connection, unit)
        disputed = disputes(connection, unit, _DISPUTED)
        covers = {
            t: best(its) for t, its in pictures_of(connection, [t for one in disputed for t in one.tracklets]).items()
        }
    return here.page("review-agreement", found, unit=unit, agree=agree, disputed=disputed, covers=covers)


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


@contextmanager
def _trying() -> Iterator[None]:
    """Raises InputError while somebody else tries something out."""
    if not _turn.acquire(blocking=False):
        raise InputError("somebody tries out an answer now; wait until that is done")
    try:
        yield
    finally:
        _turn.release()


def trial_page(here: Console, found: Visitor, unit: str, plan: Plan, back: tuple[str, str]) -> HTMLResponse:
    """What a plan would change. back: address and label of where one came from."""
    with _trying():
        model, core = here.searches.in_use(found)
        changes = rehearse(found.store, core, model, plan, reviewer=found.name)
    held = would_hinder(found.store, plan, reviewer=found.name)
    return _changes(here, found, unit, changes, held, said=plan.said, waits=False, is_trial=True, back=back)


@routes.get("/review/undo/{answer_id}")
def try_undo_page(here: Here, found: Asking, answer_id: UUID) -> HTMLResponse:
    """What the undo of an answer would change."""
    given = find_answer(found.store, str(answer_id))
    with _trying():
        model, core = here.searches.in_use(found)
        changes = rehearse_undo(found.store, core, model, str(answer_id))
    back = f"/review/changed/{answer_id}", N_("Back to what it changed")
    held = Hindrances()
    return _changes(
        here, found, given.unit, changes, held, said=None, waits=False, is_trial=True, back=back, undoes=answer_id
    )


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
    held = hindrances(found.store, str(answer_id))
    return _changes(
        here, found, district, changes, held, said=said, waits=waits, is_trial=False, back=back, undoes=undoes
    )


def _changes(
    here: Console,
    found: Visitor,
    unit: str,
    changes: Sequence[Change],
    held: Hindrances,
    *,
    said: Said | None,
    waits: bool,
    is_trial: bool,
    back: tuple[str, str],
    undoes: UUID | None = None,
) -> HTMLResponse:
    firsts = {group.tracklets[0] for one in changes for group in (*one.before, *one.after)}
    with found.store.signed_in() as connection:
        covers: dict[int, Picture] = {t: best(its) for t, its in pictures_of(connection, firsts).items()}
    values: dict[str, object] = {"unit": unit, "changes": changes, "covers": covers, "waits": waits}
    values["said"] = said and said.value
    values |= {"back": back, "undoes": undoes, "hindrances": held}
    return here.page("review-changes", found, is_trial=is_trial, **values)


def _unit(here: Console, found: Visitor, unit: str) -> str:
    """The unit that is asked for, else the first one that whoever asks may look at. Raises InputError."""
    city, _ = here.city()
    if unit:
        city.check_unit(unit)
        return unit
    districts = [one.code for one in city.units if one.level is Level.DISTRICT]
    return next((one for one in (*found.grant.units, *districts) if one), "")


def _sees_agreement(found: Visitor) -> bool:
    return found.grant.is_open or found.grant.role is Role.SUPERVISOR
