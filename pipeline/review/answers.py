"""Answers of reviewers: said, checked, undone. Each is an event that stays; what holds follows from all of them.

An answer shapes identities from the next resolve on, and confirms nothing: leads are confirmed by two people
(`pipeline.governance.leads`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, text

from pipeline.association.geometry import Geometry, unit_geometry
from pipeline.city.units import read_city
from pipeline.erasure.targets import current_identity
from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, authorized_by, deciding
from pipeline.governance.doors import check_authorized
from pipeline.resolve.constraints import Opinion, read_opinions
from pipeline.review.contradictions import Impossible, Passage, check_answers, why_impossible
from pipeline.store import Store
from schemas.errors import InputError
from schemas.levels import parent_of
from schemas.review import Said, Way
from schemas.times import to_us

#: Most pairs that one answer is about.
MOST_PAIRS = 4_000

_WHAT = "a review"
# The first crop of a tracklet names it; the same that `passage_of` finds in the database.
_PASSAGE = (
    "SELECT i.id, i.key, i.unit, i.first_seen, i.last_seen, i.timed, (SELECT c.key FROM identity_member m "
    "JOIN crop c ON c.id = m.crop_id WHERE m.identity_id = i.id ORDER BY c.captured_at, c.key LIMIT 1) AS crop "
    "FROM identity_now i WHERE i.level = 'camera' AND {which} ORDER BY i.key LIMIT :most"
)
_BY_KEY = text(_PASSAGE.format(which="i.key >= :low AND i.key <= :high"))
_BY_ID = text(_PASSAGE.format(which="i.id = ANY(:ids)"))
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
    """That two identities are one: `same` of the two passages, one of each, that are nearest in time.

    one, other: persistent ids, or their first digits. Raises as `plan_answer`.
    """
    with _looking(store) as connection:
        rows = [current_identity(connection, name) for name in (one, other)]
        sides = [passages_of(connection, row.tracklets) for row in rows]
    if rows[0].persistent_id == rows[1].persistent_id:
        raise InputError("both are the same identity; name two")
    if {p.name for p in sides[0]} & {p.name for p in sides[1]}:
        raise InputError("one of them holds passages of the other; name two identities of one level")
    geometry = _geometry(store, [rows[0].unit, rows[1].unit])
    pairs = [(a, b) for a in sides[0] for b in sides[1] if why_impossible(a, b, geometry) is None]
    if not pairs:
        raise InputError(
            "they cannot be one person: no passage of the one goes with any of the other in time and place"
        )
    return _planned(store, Plan([min(pairs, key=_gap)], Said.SAME, Way.MERGE))


def plan_split(store: Store, identity: str, taken: Sequence[str]) -> Plan:
    """That passages are not of an identity: `different` of each of them and each that stays.

    identity: its persistent id, or its first digits. taken: keys of its tracklets, or their first digits. Raises as
    `plan_answer`.
    """
    with _looking(store) as connection:
        row = current_identity(connection, identity)
        every = passages_of(connection, row.tracklets)
        out = {passage_of(connection, name).name for name in taken}
    gone, stay = [p for p in every if p.name in out], [p for p in every if p.name not in out]
    if len(gone) < len(out) or not gone or not stay:
        raise InputError(
            f"name some of the passages of identity {row.persistent_id}, and not all of them; it has {len(every)}"
        )
    pairs = [(a, b) for a in gone for b in stay]
    if len(pairs) > MOST_PAIRS:
        raise InputError(f"that is about {len(pairs)} pairs of passages; take out fewer, {MOST_PAIRS} at most at once")
    return _planned(store, Plan(pairs, Said.DIFFERENT, Way.SPLIT))


def answer(
    store: Store, left: str, right: str, said: Said, *, reviewer: str, reason: str, way: Way = Way.PAIR
) -> Answered:
    """Says what `plan_answer` plans. Raises as that and `give`."""
    return give(store, plan_answer(store, left, right, said, way), reviewer=reviewer, reason=reason)


def merge(store: Store, one: str, other: str, *, reviewer: str, reason: str) -> Answered:
    """Says what `plan_merge` plans. Raises as that and `give`."""
    return give(store, plan_merge(store, one, other), reviewer=reviewer, reason=reason)


def split(store: Store, identity: str, taken: Sequence[str], *, reviewer: str, reason: str) -> Answered:
    """Says what `plan_split` plans. Raises as that and `give`."""
    return give(store, plan_split(store, identity, taken), reviewer=reviewer, reason=reason)


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
    return [*known, *new]


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


def passage_of(connection: Connection, name: str) -> Passage:
    """A tracklet of now by its key in hex, or by eight or more of its first digits. Raises InputError."""
    digits = name.lower()
    try:
        if not 8 <= len(digits) <= 64:
            raise ValueError
        low, high = bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))
    except ValueError:
        raise InputError(f"{name[:80]!r}: give at least the first eight hex digits of a passage's key") from None
    rows = connection.execute(_BY_KEY, {"low": low, "high": high, "most": 2}).all()
    if len(rows) != 1 or rows[0].crop is None:
        what = "more than one passage's key begins" if len(rows) > 1 else "no passage's key begins"
        raise InputError(f"{what} with {name[:40]!r} now", do="`urban-reid review list` shows keys")
    return _passage(rows[0])


def passages_of(connection: Connection, tracklets: Sequence[int]) -> list[Passage]:
    """Those of the tracklets of now that may be seen and have a crop, by key. tracklets: ids."""
    return list(passages_by_id(connection, tracklets).values())


def passages_by_id(connection: Connection, tracklets: Sequence[int]) -> dict[int, Passage]:
    """The same by id."""
    rows = connection.execute(_BY_ID, {"ids": list(tracklets), "most": len(tracklets)}).all()
    return {row.id: _passage(row) for row in rows if row.crop is not None}


def _passage(row: Row[Any]) -> Passage:
    return Passage(bytes(row.crop), bytes(row.key), row.unit, row.first_seen, row.last_seen, row.timed)


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


def unit_above(cameras: set[str]) -> str:
    """The lowest unit above all these cameras; they are of one district."""
    unit = parent_of(min(cameras))
    while unit is not None and not all(camera.startswith(f"{unit}/") for camera in cameras):
        unit = parent_of(unit)
    assert unit is not None, "cameras of one district have it above them"
    return unit
