"""Answers of reviewers: said, checked, undone. Each is an event that stays; what holds follows from all of them.

An answer shapes identities from the next resolve on, and confirms nothing: leads are confirmed by two people
(`pipeline.governance.leads`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations, zip_longest
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, text

from pipeline.association.geometry import Geometry, unit_geometry
from pipeline.city.named import current_identity
from pipeline.city.units import read_city
from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, authorized_by, deciding
from pipeline.governance.doors import check_authorized
from pipeline.resolve.constraints import Opinion, read_opinions, that_count
from pipeline.review.contradictions import Impossible, check_answers, why_impossible
from pipeline.review.in_the_way import Hindrances, in_the_way
from pipeline.review.passages import Passage, in_buildings, passage_of, passages_by_id, unit_above
from pipeline.store import Store
from schemas.errors import InputError
from schemas.review import Said, Way
from schemas.times import to_us

#: Most pairs that one answer is about.
MOST_PAIRS = 4_000
#: Most passages that stand for one of two identities that are joined by hand.
REPRESENTATIVES = 12

_WHAT = "a review"
_ANSWER = text(
    "SELECT a.id, a.at, a.said, a.way, (SELECT unit FROM review_pair p WHERE p.answer_id = a.id LIMIT 1) AS unit, "
    "EXISTS (SELECT FROM review_undo u WHERE u.answer_id = a.id) AS undone FROM review_answer a "
    "WHERE starts_with(a.id::text, :id) ORDER BY a.id LIMIT 2"
)
_SEEN = text("SELECT count(DISTINCT key) FROM identity WHERE key = ANY(:keys)")
_WRITE_PAIRS = text(
    "INSERT INTO review_pair (answer_id, left_key, right_key) SELECT :id, l, r "
    "FROM unnest(CAST(:left AS bytea[]), CAST(:right AS bytea[])) AS said (l, r)"
)


@dataclass(frozen=True)
class Plan:
    """What somebody is about to say: checked for what it names, and not said yet."""

    pairs: Sequence[tuple[Passage, Passage]]
    said: Said
    way: Way

    @property
    def unit(self) -> str:
        """The lowest one above all cameras that it is about."""
        return unit_above({passage.camera for pair in self.pairs for passage in pair})

    def opinions(self, id_: UUID, who: str) -> list[Opinion]:
        """As they will be read."""
        return [_opinion(id_, one, other, self.said, self.way, who) for one, other in self.pairs]


@dataclass(frozen=True)
class Answered:
    """An answer as it was written."""

    id: UUID
    said: Said
    unit: str  # the lowest one above all cameras that it is about
    pairs: int


def plan_answer(store: Store, left: str, right: str, said: Said, way: Way = Way.PAIR) -> Plan:
    """That two passages show one person, or do not. left, right: tracklets' keys in hex, or their first eight digits.

    Raises InputError where one is not there now; NotAllowed in a live home without an authorization that covers both.
    """
    with _looking(store) as connection:
        one, other = passage_of(connection, left), passage_of(connection, right)
    if one.name == other.name:
        raise InputError("both are the same passage; name two")
    return _planned(store, Plan([(one, other)], said, way))


def plan_merge(store: Store, one: str, other: str) -> Plan:
    """That two identities are one: `same` of passages that stand for both, among each other.

    Of each identity they are one of each building's identity in it, REPRESENTATIVES at most, and the two that are
    nearest in time; of those that times and places keep from another one, none. So both are kept together, each as the
    whole that it was looked at as, whatever comes later. one, other: persistent ids, or their first digits. Raises as
    `plan_answer`.
    """
    with _looking(store) as connection:
        rows = [current_identity(connection, name) for name in (one, other)]
        by_id = [passages_by_id(connection, row.tracklets) for row in rows]
        stand = [[group[0] for group in in_buildings(connection, list(its))][:REPRESENTATIVES] for its in by_id]
    if rows[0].persistent_id == rows[1].persistent_id:
        raise InputError("both are the same identity; name two")
    sides = [list(its.values()) for its in by_id]
    if {p.name for p in sides[0]} & {p.name for p in sides[1]}:
        raise InputError("one of them holds passages of the other; name two identities of one level")
    geometry = _geometry(store, [rows[0].unit, rows[1].unit])
    pairs = [(a, b) for a in sides[0] for b in sides[1] if why_impossible(a, b, geometry) is None]
    if not pairs:
        raise InputError(
            "they cannot be one person: no passage of the one goes with any of the other in time and place"
        )
    chosen = [*min(pairs, key=_gap)]
    every = by_id[0] | by_id[1]
    for passage in (every[id_] for both in zip_longest(*stand) for id_ in both if id_ is not None):
        if passage not in chosen and not any(why_impossible(passage, known, geometry) for known in chosen):
            chosen.append(passage)
    return _planned(store, Plan(list(combinations(chosen, 2)), Said.SAME, Way.MERGE))


def plan_split(store: Store, identity: str, taken: Sequence[str]) -> Plan:
    """That passages are not of an identity: `different` of each of them and each that stays.

    Where these are more than MOST_PAIRS, of each of them and those that stand for all that stay, as in `plan_merge`.
    identity: its persistent id, or its first digits. taken: keys of its tracklets, or their first digits. Raises as
    `plan_answer`.
    """
    with _looking(store) as connection:
        row = current_identity(connection, identity)
        every = passages_by_id(connection, row.tracklets)
        out = {passage_of(connection, name).name for name in taken}
        gone, stay = ({id_: p for id_, p in every.items() if (p.name in out) is is_out} for is_out in (True, False))
        if len(gone) < len(out) or not gone or not stay:
            raise InputError(
                f"name some of the passages of identity {row.persistent_id}, and not all of them; it has {len(every)}"
            )
        if len(gone) * len(stay) <= MOST_PAIRS:
            pairs = [(a, b) for a in gone.values() for b in stay.values()]
        else:
            pairs = _apart(connection, gone, stay)
    if len(pairs) > MOST_PAIRS:
        raise InputError(f"that is about {len(pairs)} pairs of passages; take out fewer, {MOST_PAIRS} at most at once")
    return _planned(store, Plan(pairs, Said.DIFFERENT, Way.SPLIT))


def answer(
    store: Store, left: str, right: str, said: Said, *, reviewer: str, reason: str, way: Way = Way.PAIR
) -> Answered:
    """Says what `plan_answer` plans. Raises as that and `give`."""
    return give(store, plan_answer(store, left, right, said, way), reviewer=reviewer, reason=reason)


def give(store: Store, plan: Plan, *, reviewer: str, reason: str) -> Answered:
    """Says what is planned, with its row of the audit; the windows concerned are marked to be resolved again.

    Raises InputError where it contradicts other answers, or cannot be because of times and places; NotAllowed.
    """
    id_, unit = uuid4(), plan.unit
    district = unit.partition("/")[0]
    with deciding(store, _WHAT) as connection:
        who = actor_of(store, connection, reviewer)
        # Of two answers that contradict each other, the second one waits, and sees the first.
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('urban_reid review ' || :district, 0))"
        connection.execute(text(lock), {"district": district})
        with store.begin() as everything:  # also what whoever answers may not see
            check_plan(store, everything, plan, id_, who)
        connection.execute(
            text(
                "INSERT INTO review_answer (id, reviewer, said, way, reason) VALUES (:id, :who, :said, :way, :reason)"
            ),
            {"id": id_, "who": who, "said": plan.said.value, "way": plan.way.value, "reason": reason},
        )
        keys = {"left": [one.key for one, _ in plan.pairs], "right": [other.key for _, other in plan.pairs]}
        connection.execute(_WRITE_PAIRS, {"id": id_, **keys})
        details = {"answer": str(id_), "said": plan.said.value, "way": plan.way.value, "pairs": len(plan.pairs)}
        audit(
            connection, who, Action.REVIEW_ANSWER, unit=unit, reason=reason, details=details | authorized_by(connection)
        )
    return Answered(id_, plan.said, unit, len(plan.pairs))


def check_plan(store: Store, connection: Connection, plan: Plan, id_: UUID, who: str) -> list[Opinion]:
    """What reviewers say of the district once the plan is said. connection: of `Store.begin`. Raises as `give`."""
    new = plan.opinions(id_, who)
    replaced = {one.pair for one in new}
    known = read_opinions(connection, plan.unit.partition("/")[0])
    known = [one for one in known if one.reviewer != who or one.pair not in replaced]
    try:
        check_answers(connection, _geometry(store, [plan.unit]), known, new)
    except Impossible as error:
        with store.signed_in() as looking:
            seen = looking.scalar(_SEEN, {"keys": [one.key for one in error.passages]})
        if seen == len(error.passages):
            raise
        raise InputError(
            "they cannot be one person: other answers join them with somebody whom your authorization does not show"
        ) from None
    return that_count([*known, *new])


def hindrances(store: Store, answer_id: str) -> Hindrances:
    """What stands in the way of an answer that says that passages are one person; nothing of another answer.

    Raises as `find_answer`.
    """
    row = find_answer(store, answer_id)
    if row.undone or Said(row.said) is not Said.SAME:
        return Hindrances()
    district = row.unit.partition("/")[0]
    with store.begin() as connection:
        opinions = read_opinions(connection, district)
    pairs = {one.pair for one in opinions if one.answer == row.id}
    return in_the_way(store, _geometry(store, [district]), pairs, opinions)


def would_hinder(store: Store, plan: Plan, *, reviewer: str) -> Hindrances:
    """What would stand in the way of a plan that says that passages are one person. Raises as `give`."""
    if plan.said is not Said.SAME:
        return Hindrances()
    with store.signed_in() as connection:
        who = actor_of(store, connection, reviewer)
    id_ = uuid4()
    with store.begin() as everything:
        opinions = check_plan(store, everything, plan, id_, who)
    pairs = {one.pair for one in opinions if one.answer == id_}
    return in_the_way(store, _geometry(store, [plan.unit]), pairs, opinions)


def plan_follow(store: Store, answer_id: str, other: str | None = None) -> Plan:
    """That whoever stands in the way of an answer is somebody else than those whom a lower level joined with them.

    other: key of the one who is, in hex, or its first digits; without it all who certainly are. Raises InputError where
    nobody stands in the way, or one of several joins is wrong and none is named; NotAllowed.
    """
    found = hindrances(store, answer_id).found
    if other is None:
        chosen = [one for one in found if one.is_certain]
    else:
        chosen = [one for one in found if one.other.key.hex().startswith(other.lower())]
    if not chosen:
        raise InputError(
            "one of several joins stands in the way; name the passage that was joined wrongly"
            if found and other is None
            else "no such passage stands in the way of that answer"
        )
    return _planned(store, Plan([(one.held, one.other) for one in chosen], Said.DIFFERENT, Way.SPLIT))


def undo(store: Store, answer_id: str, *, reviewer: str, reason: str) -> Answered:
    """Undoes an answer, whatever was answered since. answer_id: its id, or its first digits.

    Raises InputError where there is none, or it was undone before; NotAllowed.
    """
    row = find_answer(store, answer_id)
    if row.undone:
        raise InputError(f"answer {row.id} was undone before")
    with deciding(store, _WHAT) as connection:
        who = actor_of(store, connection, reviewer)
        sql = "INSERT INTO review_undo (answer_id, reviewer, reason) VALUES (:id, :who, :reason)"
        connection.execute(text(sql), {"id": row.id, "who": who, "reason": reason})
        details = {"answer": str(row.id)} | authorized_by(connection)
        audit(connection, who, Action.REVIEW_UNDO, unit=row.unit, reason=reason, details=details)
    return Answered(row.id, Said(row.said), row.unit, 0)


def find_answer(store: Store, answer_id: str) -> Row[Any]:
    """An answer (id, at, said, way, unit, undone) by its id, or by four or more of its first digits.

    Raises InputError where there is none that may be seen; NotAllowed.
    """
    with _looking(store) as connection:
        rows = connection.execute(_ANSWER, {"id": answer_id.lower()}).all() if len(answer_id) >= 4 else []
    if len(rows) != 1:
        many = "more than one answer's id begins" if rows else "no answer's id of four or more digits begins"
        raise InputError(f"{many} with {answer_id[:40]!r}", do="`urban-reid review list --answers` shows them")
    check_authorized(store, rows[0].unit, _WHAT)
    return rows[0]


def _apart(
    connection: Connection, gone: Mapping[int, Passage], stay: Mapping[int, Passage]
) -> list[tuple[Passage, Passage]]:
    """Pairs that keep many passages from many: of those that stand for each side, and all that a building joined."""
    stand = [[group[0] for group in in_buildings(connection, list(side))] for side in (gone, stay)]
    found = {(a, b) for a in stand[0] for b in stand[1]}
    for group in in_buildings(connection, [*gone, *stay]):
        found |= {(a, b) for a in group for b in group if a in gone and b in stay}
    return [(gone[a], stay[b]) for a, b in sorted(found)]


def _gap(pair: tuple[Passage, Passage]) -> tuple[int, bytes, bytes]:
    one, other = pair
    gap = to_us(max(one.first_seen, other.first_seen)) - to_us(min(one.last_seen, other.last_seen))
    return gap, one.key, other.key


def _geometry(store: Store, units: Sequence[str]) -> Geometry:
    """Of the district that all units are in. Raises InputError if there is none."""
    districts = {unit.partition("/")[0] for unit in units}
    if len(districts) > 1:
        raise InputError("they were seen in two districts, whose people are never joined")
    return unit_geometry(read_city(store), districts.pop(), store.settings.association)


@contextmanager
def _looking(store: Store) -> Iterator[Connection]:
    """A transaction of whoever may review."""
    with deciding(store, _WHAT) as connection:
        connection.execute(text("SELECT check_may_look(:what)"), {"what": _WHAT})
        yield connection


def _planned(store: Store, plan: Plan) -> Plan:
    """The plan. Raises InputError for two districts, NotAllowed where whoever is signed in may not see all of it."""
    _geometry(store, sorted({passage.camera for pair in plan.pairs for passage in pair}))
    check_authorized(store, plan.unit, _WHAT)
    return plan


def _opinion(id_: UUID, one: Passage, other: Passage, said: Said, way: Way, who: str) -> Opinion:
    low, high = sorted((one, other), key=lambda passage: passage.name)
    unit = unit_above({one.camera, other.camera})
    return Opinion((low.name, high.name), (low.key, high.key), unit, id_, datetime.now(UTC), who, said, way)
