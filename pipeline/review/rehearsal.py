"""What an answer, or its undo, would change: the resolve itself, in one transaction that is rolled back."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.governance.audit import Action
from pipeline.governance.deciding import actor_of
from pipeline.governance.doors import check_authorized
from pipeline.registry import ModelRow
from pipeline.resolve.constraints import Opinion, read_opinions, versions_of
from pipeline.resolve.unit import resolve_held
from pipeline.review.answers import Plan, check_plan, find_answer
from pipeline.review.changes import Change, Group, read_changes
from pipeline.store import Store
from pipeline.store.locks import unit_locks
from reid_core.serving.core import ReIDCore
from schemas.errors import InputError
from schemas.levels import UPWARD, Level, is_within, level_of
from schemas.parameters import Period

#: How far a rehearsal goes on from the first window concerned.
REACH = timedelta(days=1)

#: What reviewers would say of the district, and what of it is new or goes.
_Find = Callable[[Connection, str], tuple[list[Opinion], list[Opinion]]]


class _Trial(Store):
    """A store all of whose transactions as the program are one."""

    def __init__(self, store: Store, connection: Connection) -> None:
        vars(self).update(vars(store))
        self.looked_at_growth_s = math.inf  # nothing is analyzed
        self._connection = connection

    @contextmanager
    def begin(self, *, only_reads: bool = False) -> Iterator[Connection]:
        yield self._connection


def rehearse(store: Store, core: ReIDCore, model: ModelRow, plan: Plan, *, reviewer: str) -> list[Change]:
    """What would change in the district within REACH if the plan were said and everything resolved; nothing is kept.

    Waits for resolves of the district, and they for it. Only what whoever is signed in may see is told. Raises as
    `give`.
    """
    return _rehearsed(store, core, model, plan.unit, lambda c, who: _planned(store, c, plan, who), reviewer)


def rehearse_undo(store: Store, core: ReIDCore, model: ModelRow, answer_id: str) -> list[Change]:
    """The same for the undo of an answer; nothing where it does not count by now. Raises as `undo`."""
    row = find_answer(store, answer_id)
    if row.undone:
        raise InputError(f"answer {row.id} was undone before")
    district = row.unit.partition("/")[0]
    with store.begin() as connection:
        if not any(one.answer == row.id for one in read_opinions(connection, district)):
            return []

    def without(connection: Connection, _: str) -> tuple[list[Opinion], list[Opinion]]:
        gone = [one for one in read_opinions(connection, district) if one.answer == row.id]
        return read_opinions(connection, district, without=row.id), gone

    return _rehearsed(store, core, model, row.unit, without, "")


def _planned(store: Store, connection: Connection, plan: Plan, who: str) -> tuple[list[Opinion], list[Opinion]]:
    id_ = uuid4()
    every = check_plan(store, connection, plan, id_, who)
    return every, [one for one in every if one.answer == id_]


class _Over(Exception):
    """Ends the trial, whose transaction is rolled back by it."""


def _rehearsed(store: Store, core: ReIDCore, model: ModelRow, unit: str, find: _Find, reviewer: str) -> list[Change]:
    check_authorized(store, unit, "a review", Action.REVIEW_SHOW)
    district = unit.partition("/")[0]
    with store.signed_in() as connection:
        who = actor_of(store, connection, reviewer)
    codes = [one.code for one in read_city(store).units if is_within(one.code, district)]
    codes = [code for code in codes if level_of(code) is not Level.CAMERA]
    found: list[Change] = []
    with suppress(_Over), unit_locks(store, codes), store.begin() as connection:
        trial = _Trial(store, connection)
        opinions, concerned = find(connection, who)
        starts = _starts(connection, codes, [*opinions, *concerned], concerned)
        since: datetime = connection.execute(text("SELECT now()")).scalar_one()
        watermarks.mark_all(connection, starts)
        until = starts[district] + REACH
        for code in sorted(starts, key=lambda code: UPWARD.index(level_of(code))):
            resolve_held(
                trial,
                core,
                model,
                code,
                settings=store.settings.association,
                period=Period(to_time=until),
                opinions=opinions,
            )
        found = read_changes(connection, district, since)
        raise _Over
    return _seen(store, found)


def _starts(
    connection: Connection, codes: Sequence[str], every: Sequence[Opinion], concerned: Sequence[Opinion]
) -> dict[str, datetime]:
    """From which window on each unit may decide otherwise, as `mark_review` in the database marks them.

    Raises InputError where nothing is left of what the opinions `concerned` are about.
    """
    reached = {name for one in concerned for name in one.pair}
    while more := {name for one in every if reached & {*one.pair} for name in one.pair} - reached:
        reached |= more
    first: dict[bytes, tuple[datetime, str]] = {}
    for one in versions_of(connection, [one for one in every if {*one.pair} <= reached]):
        first[one.name] = min((one.window, one.camera), first.get(one.name, (one.window, one.camera)))
    starts: dict[str, datetime] = {}
    for code in codes:
        windows = sorted(window for window, camera in first.values() if is_within(camera, code))
        if len(windows) > 1:
            starts[code] = windows[1]
    if not starts:
        raise InputError("none of these passages is there any more")
    return starts


def _seen(store: Store, changes: Sequence[Change]) -> list[Change]:
    """The changes, with those tracklets that whoever is signed in may see."""
    ids = sorted({t for one in changes for group in (*one.before, *one.after) for t in group.tracklets})
    with store.signed_in() as connection:
        query = text("SELECT id FROM identity WHERE id = ANY(:ids)")
        seen = set(connection.execute(query, {"ids": ids}).scalars()) if ids else set()

    def of(groups: Sequence[Group]) -> tuple[Group, ...]:
        kept = [Group(g.persistent_id, tuple(t for t in g.tracklets if t in seen)) for g in groups]
        return tuple(group for group in kept if group.tracklets)

    found = [Change(of(one.before), of(one.after)) for one in changes]
    return [one for one in found if one.before and one.after]
