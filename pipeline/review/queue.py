"""What waits for a reviewer, most valuable first: match decisions left to a person, and hits of searches.

Of a pair counts how unsure the program is, and how many pictures an answer would move: 1 at even odds and 0 where it is
sure, times the logarithm of the pictures of the smaller side (`worth_of` in the database). Of equal ones the older
comes first. No probability is shown: it would tell the reviewer what to say.

Of standing searches there is none: they raise the same person again and again, and in a live home each is a lead.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Row, text

from pipeline.resolve.constraints import read_opinions, votes
from pipeline.review.company import Company, brings_many, companies
from pipeline.review.passages import Passage, passages_by_id
from schemas.errors import InputError
from schemas.review import Way
from schemas.times import to_us

#: Rows that are read at once beyond those asked for; some are left out afterwards.
_SPARE = 12

# `which`: the side of a place on which rows lie; `order`: away from it. Decisions are kept in this order.
_ROWS = (
    "SELECT * FROM ("
    "(SELECT 'decision' AS way, 'd' || lpad(o.decision_id::text, 19, '0') AS ref, o.unit, o.window_start AS at, "
    " o.worth AS value, o.decision_id, NULL::bigint AS tracklet, NULL::bigint AS identity FROM review_open o "
    " WHERE (o.unit = :unit OR starts_with(o.unit, :unit || '/')) "
    " AND (CAST(:ref AS text) IS NULL OR (-o.worth, o.window_start) {or_equal} (-CAST(:value AS numeric), :at) "
    "  AND (-o.worth, o.window_start, 'd' || lpad(o.decision_id::text, 19, '0')) {which} "
    "  (-CAST(:value AS numeric), :at, :ref)) "
    " ORDER BY -o.worth {order}, o.window_start {order}, o.decision_id {order} LIMIT :most) "
    "UNION ALL SELECT * FROM (SELECT 'hit', 'h' || q.id::text || lpad(h.rank::text, 4, '0') AS ref, q.unit, "
    "  q.requested_at, worth_of(h.probability, least(t.crops, i.crops)) AS value, NULL::bigint, t.id, i.id "
    "  FROM search_request q JOIN search_hit h ON h.request_id = q.id JOIN identity i ON i.id = h.identity_id "
    "  JOIN identity_member m ON m.crop_id = q.crop_id JOIN identity t ON t.id = m.identity_id "
    "  AND t.level = 'camera' JOIN run r ON r.id = t.run_id AND r.superseded_at IS NULL "
    "  WHERE t.id <> ALL(i.tracklets) AND q.standing_id IS NULL "
    "  AND (q.unit = :unit OR starts_with(q.unit, :unit || '/'))) AS hits "
    " WHERE CAST(:ref AS text) IS NULL OR (-value, requested_at, ref) {which} (-CAST(:value AS numeric), :at, :ref)) "
    "AS waiting ORDER BY -value {order}, at {order}, ref {order} LIMIT :most"
)
_AFTER = text(_ROWS.format(which=">", or_equal=">=", order="ASC"))
_BEFORE = text(_ROWS.format(which="<", or_equal="<=", order="DESC"))
# A side's row is the newest version with its key.
_SIDES = text(
    "SELECT d.id, a.tracklets AS one, b.tracklets AS other FROM match_decision d "
    "CROSS JOIN LATERAL (SELECT i.tracklets FROM identity i WHERE i.key = d.left_key AND NOT i.retired "
    "  ORDER BY i.id DESC LIMIT 1) AS a "
    "CROSS JOIN LATERAL (SELECT i.tracklets FROM identity i WHERE i.key = d.right_key AND NOT i.retired "
    "  ORDER BY i.id DESC LIMIT 1) AS b WHERE d.id = ANY(:decisions)"
)
_TRACKLETS_OF = text("SELECT id, tracklets FROM identity WHERE id = ANY(:ids)")
_TIMES = text("SELECT id, key, first_seen, last_seen FROM identity WHERE id = ANY(:ids) ORDER BY key")
# Open decisions about two identities, of now or of before, one with each passage of a pair.
_TWINS = text(
    "WITH RECURSIVE up (tracklet, id) AS (SELECT t, t FROM unnest(CAST(:ones || :others AS bigint[])) AS t "
    "  UNION SELECT u.tracklet, m.identity_id FROM up u JOIN identity_member m ON m.child_id = u.id), "
    "held AS (SELECT DISTINCT u.tracklet, i.key FROM up u JOIN identity i ON i.id = u.id), "
    "found AS (SELECT DISTINCT d.id FROM unnest(CAST(:ones AS bigint[]), CAST(:others AS bigint[])) AS p (one, other) "
    "  JOIN held a ON a.tracklet = p.one JOIN held b ON b.tracklet = p.other JOIN match_decision d "
    "  ON d.left_key = least(a.key, b.key) AND d.right_key = greatest(a.key, b.key) WHERE d.verdict = 'review') "
    "SELECT 'decision' AS way, 'd' || lpad(o.decision_id::text, 19, '0') AS ref, o.unit, o.window_start AS at, "
    "o.worth AS value, o.decision_id, NULL::bigint AS tracklet, NULL::bigint AS identity "
    "FROM found f JOIN review_open o ON o.decision_id = f.id WHERE o.unit = :unit OR starts_with(o.unit, :unit || '/')"
)
# Pairs that one reviewer alone has answered, the newest first, by that answer; not what was done by hand.
_ANSWERED_ONCE = text(
    "SELECT a.id, a.at, p.unit, p.left_key, p.right_key FROM review_answer a JOIN review_pair p ON p.answer_id = a.id "
    "WHERE a.reviewer <> :reviewer AND a.way NOT IN ('merge', 'split') "
    "AND (p.unit = :unit OR starts_with(p.unit, :unit || '/')) "
    "AND NOT EXISTS (SELECT FROM review_undo u WHERE u.answer_id = a.id) "
    "AND NOT EXISTS (SELECT FROM review_pair o JOIN review_answer b ON b.id = o.answer_id "
    "  WHERE o.left_crop = p.left_crop AND o.right_crop = p.right_crop AND (b.reviewer <> a.reviewer OR b.at > a.at) "
    "  AND NOT EXISTS (SELECT FROM review_undo u WHERE u.answer_id = b.id)) "
    "ORDER BY a.at DESC, a.id LIMIT :most"
)


@dataclass(frozen=True)
class Place:
    """A place in the queue: that of the item with these."""

    value: str  # what an answer is worth, as a decimal number
    at: datetime
    ref: str

    def __str__(self) -> str:
        """For an address; it does not show what an answer is worth."""
        told = f"{self.value}~{self.at.isoformat()}~{self.ref}"
        return urlsafe_b64encode(told.encode()).decode().rstrip("=")

    @property
    def order(self) -> tuple[Decimal, datetime, str]:
        """What comes first is less."""
        return -Decimal(self.value), self.at, self.ref

    @classmethod
    def parse(cls, told: str) -> "Place":
        """The place that was written as this. Raises InputError."""
        try:
            whole = told + "=" * (-len(told) % 4)
            value, at, ref = urlsafe_b64decode(whole).decode().split("~")
            float(value)
            return cls(value, datetime.fromisoformat(at), ref)
        except ValueError:
            raise InputError(f"{told[:80]!r} is no place in the queue; load the page again") from None


@dataclass(frozen=True)
class Side:
    """One of both passages, and the district's identity that holds it now."""

    tracklet: int
    passage: Passage
    company: Company | None

    @property
    def person(self) -> UUID | None:
        return None if self.company is None else self.company.person


@dataclass(frozen=True)
class Item:
    """Two passages to look at."""

    way: Way
    ref: str  # tells it from others of the queue
    unit: str  # where it was decided or searched
    at: datetime  # of the window or the search; of the answer where it is a second look
    value: float
    left: Side
    right: Side
    place: Place

    @property
    def brings_many(self) -> bool:
        return brings_many(self.left.company, self.right.company)


@dataclass(frozen=True)
class Queue:
    items: Sequence[Item]
    next: Place | None  # of the last item; None: there are no more


def read_queue(
    connection: Connection,
    unit: str,
    reviewer: str,
    after: Place | None = None,
    most: int = 20,
    *,
    back: bool = False,
) -> Queue:
    """A page of what waits in a unit and below it, as far as it may be seen (`Store.signed_in`).

    Left out is what is answered, by anybody where that binds and by the reviewer in any case, and passages that are of
    one district's identity by now. back: what comes before the place `after`, the nearest first.
    """
    items: list[Item] = []
    at_once = most + _SPARE
    while True:
        place = {"value": after and after.value, "at": after and after.at, "ref": after and after.ref}
        rows = connection.execute(_BEFORE if back else _AFTER, {"unit": unit, "most": at_once, **place}).all()
        for item in _items(connection, rows, unit, reviewer, items):
            if len(items) == most:
                return Queue(items, items[-1].place)
            items.append(item)
        if len(rows) < at_once:
            return Queue(items, None)
        after = Place(str(rows[-1].value), rows[-1].at, rows[-1].ref)


def second_looks(connection: Connection, unit: str, reviewer: str, most: int = 20) -> Queue:
    """Pairs that one other reviewer has answered and this one has not, the newest first: to see how far they agree."""
    asked = {"unit": unit, "reviewer": reviewer, "most": most + _SPARE}
    found = []
    for row in connection.execute(_ANSWERED_ONCE, asked).all():
        sides = [tracklet_of(connection, bytes(key)) for key in (row.left_key, row.right_key)]
        if None not in sides:
            one, other = (side for side in sides if side)
            found.append(_Waiting(Way.SECOND, row.unit, Place("0", row.at, row.id.hex), one, other))
    return Queue(_shown(connection, found)[:most], None)


def tracklet_of(connection: Connection, key: bytes) -> int | None:
    """The id of the tracklet of now with this key."""
    query = text(
        "SELECT i.id FROM identity i JOIN run r ON r.id = i.run_id AND r.superseded_at IS NULL "
        "WHERE i.key = :key AND i.level = 'camera'"
    )
    return connection.execute(query, {"key": key}).scalar()


@dataclass(frozen=True)
class _Waiting:
    way: Way
    unit: str
    place: Place
    one: int  # tracklets
    other: int


def _items(
    connection: Connection, rows: Sequence[Row[Any]], unit: str, reviewer: str, before: Sequence[Item]
) -> list[Item]:
    """Of each row the two passages to look at; not those that are done, and the same two at their first place alone."""
    shown = _shown(connection, _waiting(connection, rows))
    names = [_names(item) for item in shown]
    opinions = read_opinions(connection, unit.partition("/")[0], among={name for pair in names for name in pair})
    told = {pair for pair, vote in votes(opinions).items() if vote}
    told |= {one.pair for one in opinions if one.reviewer == reviewer} | {_names(item) for item in before}
    open_ = [
        (item, pair)
        for item, pair in zip(shown, names, strict=True)
        if pair not in told and (item.left.person is None or item.left.person != item.right.person)
    ]
    first = _first_places(connection, unit, [item for item, _ in open_])
    found = []
    for item, pair in open_:
        if pair not in told and first.get(_tracklets(item), item.place.order) >= item.place.order:
            told.add(pair)
            found.append(item)
    return found


def _first_places(
    connection: Connection, unit: str, items: Sequence[Item]
) -> dict[frozenset[int], tuple[Decimal, datetime, str]]:
    """Where in the queue the two tracklets of each item are first asked about: two units may have decided on them."""
    asked = {"unit": unit, "ones": [item.left.tracklet for item in items]}
    asked |= {"others": [item.right.tracklet for item in items]}
    found: dict[frozenset[int], tuple[Decimal, datetime, str]] = {}
    for one in _waiting(connection, connection.execute(_TWINS, asked).all()) if items else ():
        both = frozenset((one.one, one.other))
        found[both] = min(found.get(both, one.place.order), one.place.order)
    return found


def _tracklets(item: Item) -> frozenset[int]:
    return frozenset((item.left.tracklet, item.right.tracklet))


def _names(item: Item) -> tuple[bytes, bytes]:
    one, other = item.left.passage.name, item.right.passage.name
    return min(one, other), max(one, other)


def _waiting(connection: Connection, rows: Sequence[Row[Any]]) -> list[_Waiting]:
    """Of each row the passages of both sides that are nearest in time, which the decision's evidence is about."""
    asked = {"decisions": [row.decision_id for row in rows if row.decision_id is not None]}
    sides = {row.id: (row.one, row.other) for row in connection.execute(_SIDES, asked)}
    ids = [row.identity for row in rows if row.identity is not None]
    held = {row.id: row.tracklets for row in connection.execute(_TRACKLETS_OF, {"ids": ids})} if ids else {}
    pairs = {
        row.ref: sides.get(row.decision_id) if row.identity is None else ([row.tracklet], held.get(row.identity, []))
        for row in rows
    }
    every = sorted({t for pair in pairs.values() if pair for side in pair for t in side})
    times = connection.execute(_TIMES, {"ids": every}).all()
    place = {row.id: number for number, row in enumerate(times)}
    first, last = (np.array([to_us(moment) for moment in column], np.int64) for column in _columns(times))
    found = []
    for row in rows:
        one, other = (sorted(place[t] for t in side if t in place) for side in pairs[row.ref] or ([], []))
        if one and other:
            gaps = np.maximum.outer(first[one], first[other]) - np.minimum.outer(last[one], last[other])
            a, b = np.unravel_index(int(gaps.argmin()), gaps.shape)  # of equal ones the first by key
            at = Place(str(row.value), row.at, row.ref)
            found.append(_Waiting(Way(row.way), row.unit, at, times[one[a]].id, times[other[b]].id))
    return found


def _columns(times: Sequence[Row[Any]]) -> tuple[list[datetime], list[datetime]]:
    return [row.first_seen for row in times], [row.last_seen for row in times]


def _shown(connection: Connection, rows: Sequence[_Waiting]) -> list[Item]:
    ids = sorted({id_ for row in rows for id_ in (row.one, row.other)})
    passages = passages_by_id(connection, ids)
    held = companies(connection, ids)

    def side(id_: int) -> Side:
        return Side(id_, passages[id_], held.get(id_))

    return [
        Item(
            row.way,
            row.place.ref,
            row.unit,
            row.place.at,
            float(row.place.value),
            side(row.one),
            side(row.other),
            row.place,
        )
        for row in rows
        if row.one in passages and row.other in passages
    ]
