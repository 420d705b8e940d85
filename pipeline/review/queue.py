"""What waits for a reviewer, most valuable first: match decisions left to a person, and hits of searches.

Of a pair counts how unsure the program is, and how many pictures an answer would move: 1 at even odds and 0 where it is
sure, times the logarithm of the pictures of the smaller side. Of equal ones the older comes first. No probability is
shown: it would tell the reviewer what to say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.resolve.constraints import Opinion, Pair, read_opinions, votes
from pipeline.review.passages import Passage, passage_of, passages_by_id, unit_above
from schemas.review import Way

#: Rows that are read at once; some are left out afterwards.
_AT_ONCE = 60

_WITHIN = "({unit} = :unit OR starts_with({unit}, :unit || '/'))"
# A side's row is the newest version with its key; of a group that was joined on in the same window there is none.
_DECISIONS = (
    "SELECT 'decision' AS way, 'd' || lpad(d.id::text, 19, '0') AS ref, r.unit, r.window_start AS at, d.probability, "
    "a.tracklets AS one, b.tracklets AS other, least(a.crops, b.crops) AS crops "
    "FROM run r JOIN match_decision d ON d.run_id = r.id AND d.verdict = 'review' "
    "CROSS JOIN LATERAL (SELECT i.tracklets, i.crops FROM identity i WHERE i.key = d.left_key AND NOT i.retired "
    "  ORDER BY i.id DESC LIMIT 1) AS a "
    "CROSS JOIN LATERAL (SELECT i.tracklets, i.crops FROM identity i WHERE i.key = d.right_key AND NOT i.retired "
    "  ORDER BY i.id DESC LIMIT 1) AS b "
    f"WHERE r.superseded_at IS NULL AND {_WITHIN.format(unit='r.unit')}"
)
_HITS = (
    "SELECT 'hit', 'h' || q.id::text || lpad(h.rank::text, 4, '0'), q.unit, q.requested_at, h.probability, "
    "ARRAY[t.id], i.tracklets, least(t.crops, i.crops) FROM search_request q "
    "JOIN search_hit h ON h.request_id = q.id JOIN identity i ON i.id = h.identity_id "
    "JOIN identity_member m ON m.crop_id = q.crop_id "
    "JOIN identity t ON t.id = m.identity_id AND t.level = 'camera' "
    "JOIN run r ON r.id = t.run_id AND r.superseded_at IS NULL "
    f"WHERE t.id <> ALL(i.tracklets) AND {_WITHIN.format(unit='q.unit')}"
)
_QUEUE = text(
    "SELECT * FROM (SELECT *, round(CAST((1 - abs(2 * coalesce(probability, 0.5) - 1)) * log(2.0, 1 + crops) "
    f"AS numeric), 3) AS value FROM ({_DECISIONS} UNION ALL {_HITS}) AS waiting) AS valued "
    "WHERE CAST(:ref AS text) IS NULL OR (-value, at, ref) > (-CAST(:value AS numeric), :at, :ref) "
    "ORDER BY value DESC, at, ref LIMIT :most"
)
# Of two sides the passages that are nearest in time, which the decision's evidence is about.
_NEAREST = text(
    "SELECT a.id AS one, b.id AS other FROM identity a, identity b WHERE a.id = ANY(:one) AND b.id = ANY(:other) "
    "ORDER BY greatest(a.first_seen, b.first_seen) - least(a.last_seen, b.last_seen), a.key, b.key LIMIT 1"
)
# From a tracklet up to the district's identity of now.
_PERSONS = text(
    "WITH RECURSIVE up (tracklet, id) AS (SELECT t, t FROM unnest(CAST(:tracklets AS bigint[])) AS t "
    "  UNION SELECT u.tracklet, m.identity_id FROM up u JOIN identity_member m ON m.child_id = u.id) "
    "SELECT DISTINCT u.tracklet, i.persistent_id, i.crops FROM up u JOIN identity i ON i.id = u.id "
    "JOIN run r ON r.id = i.run_id AND r.superseded_at IS NULL WHERE i.unit = split_part(i.unit, '/', 1) "
    "AND NOT i.retired AND NOT EXISTS (SELECT FROM identity n JOIN run s ON s.id = n.run_id "
    "  WHERE n.unit = i.unit AND n.persistent_id = i.persistent_id AND n.window_start > i.window_start "
    "  AND s.superseded_at IS NULL) ORDER BY 1"
)


@dataclass(frozen=True)
class Place:
    """Where a page begins: after the item with these."""

    value: float
    at: datetime
    ref: str


@dataclass(frozen=True)
class Side:
    """One of both passages, and the district's identity that holds it now."""

    tracklet: int
    passage: Passage
    person: UUID | None
    crops: int  # of that identity


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


@dataclass(frozen=True)
class Queue:
    items: Sequence[Item]
    next: Place | None  # None: there are no more


def read_queue(connection: Connection, unit: str, reviewer: str, after: Place | None = None, most: int = 20) -> Queue:
    """A page of what waits in a unit and below it, as far as it may be seen (`Store.signed_in`).

    Left out is what is answered, by anybody where that binds and by the reviewer in any case, and passages that are of
    one district's identity by now.
    """
    opinions = read_opinions(connection, unit.partition("/")[0])
    held = {pair for pair, vote in votes(opinions).items() if vote}
    done = held | {one.pair for one in opinions if one.reviewer == reviewer}
    items: list[Item] = []
    while True:
        place = {"value": after and after.value, "at": after and after.at, "ref": after and after.ref}
        rows = connection.execute(_QUEUE, {"unit": unit, "most": _AT_ONCE, **place}).all()
        for item in _items(connection, rows, done):
            if len(items) == most:
                last = items[-1]
                return Queue(items, Place(last.value, last.at, last.ref))
            items.append(item)
        if len(rows) < _AT_ONCE:
            return Queue(items, None)
        after = Place(float(rows[-1].value), rows[-1].at, rows[-1].ref)


def second_looks(connection: Connection, unit: str, reviewer: str, most: int = 20) -> Queue:
    """Pairs that one other reviewer has answered and this one has not, the newest first: to see how far they agree."""
    by_pair: dict[Pair, list[Opinion]] = {}
    for one in read_opinions(connection, unit):
        by_pair.setdefault(one.pair, []).append(one)
    asked = [its[0] for its in by_pair.values() if len(its) == 1 and its[0].reviewer != reviewer]
    asked = [one for one in asked if one.way is not Way.SPLIT]  # whose pairs nobody looked at one by one
    items = []
    for one in sorted(asked, key=lambda one: (one.at, one.pair), reverse=True)[:most]:
        sides = [tracklet_of(connection, key) for key in one.keys]
        if None not in sides:
            row = _Waiting(Way.SECOND, one.answer.hex, one.unit, one.at, 0.0, *(side for side in sides if side))
            items += _shown(connection, [row])
    return Queue(items, None)


def item_of(connection: Connection, left: str, right: str) -> Item:
    """Two passages that somebody names, by keys or their first digits. Raises InputError."""
    one, other = passage_of(connection, left), passage_of(connection, right)
    ids = [tracklet_of(connection, side.key) for side in (one, other)]
    unit = unit_above({one.camera, other.camera})
    when = max(one.last_seen, other.last_seen)
    (item,) = _shown(connection, [_Waiting(Way.PAIR, "", unit, when, 0.0, ids[0] or 0, ids[1] or 0)])
    return item


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
    ref: str
    unit: str
    at: datetime
    value: float
    one: int  # tracklets
    other: int


def _items(connection: Connection, rows: Sequence[Row[Any]], done: set[Pair]) -> Iterator[Item]:
    """Of each row the two passages to look at; not those that are done, nor the same two twice."""
    told = set(done)
    found = []
    for row in rows:
        pair = connection.execute(_NEAREST, {"one": row.one, "other": row.other}).one_or_none()
        if pair is not None:
            found.append(_Waiting(Way(row.way), row.ref, row.unit, row.at, float(row.value), pair.one, pair.other))
    for item in _shown(connection, found):
        names = (
            min(item.left.passage.name, item.right.passage.name),
            max(item.left.passage.name, item.right.passage.name),
        )
        if names not in told and (item.left.person is None or item.left.person != item.right.person):
            told.add(names)
            yield item


def _shown(connection: Connection, rows: Sequence[_Waiting]) -> list[Item]:
    ids = sorted({id_ for row in rows for id_ in (row.one, row.other)})
    passages = passages_by_id(connection, ids)
    persons = {row.tracklet: row for row in connection.execute(_PERSONS, {"tracklets": ids})}

    def side(id_: int) -> Side:
        person = persons.get(id_)
        return Side(id_, passages[id_], person.persistent_id if person else None, person.crops if person else 0)

    return [
        Item(row.way, row.ref, row.unit, row.at, row.value, side(row.one), side(row.other))
        for row in rows
        if row.one in passages and row.other in passages
    ]
