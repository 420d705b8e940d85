"""Why an answer cannot be followed: below the place where two passages meet, one of them was joined with somebody whom
times and places keep from the other.

That join stays until somebody says that it is wrong: the answer is evidence of it, and no proof.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from pipeline.association.geometry import Geometry
from pipeline.resolve.constraints import Opinion, Pair, implied, versions_of
from pipeline.review.contradictions import why_impossible
from pipeline.review.passages import NEWEST, Passage, passages_by_id, unit_above
from pipeline.store import Store

# From tracklets up to the identities of now that hold them.
_HOLDERS = text(
    "WITH RECURSIVE up (tracklet, id) AS (SELECT t, t FROM unnest(CAST(:tracklets AS bigint[])) AS t "
    "  UNION SELECT u.tracklet, m.identity_id FROM up u JOIN identity_member m ON m.child_id = u.id) "
    "SELECT u.tracklet, i.unit, i.tracklets FROM up u JOIN identity i ON i.id = u.id JOIN run r ON r.id = i.run_id "
    f"AND r.superseded_at IS NULL WHERE i.level IN ('building', 'street') AND {NEWEST} ORDER BY i.unit DESC, i.id"
)
_SEEN = text("SELECT key FROM identity WHERE key = ANY(:keys)")


@dataclass(frozen=True)
class InTheWay:
    """Somebody who stands in the way of an answer, and what would have to be said of whom."""

    held: Passage  # of the answer
    other: Passage  # whom a lower level joined with it
    unit: str  # that joined them
    why: str  # the other one cannot be the answer's other side
    is_certain: bool  # False: either this join is wrong, or another one that is named beside it

    @property
    def pair(self) -> Pair:
        return min(self.held.name, self.other.name), max(self.held.name, self.other.name)


@dataclass(frozen=True)
class Hindrances:
    """What stands in the way of an answer."""

    found: Sequence[InTheWay] = ()
    hidden: int = 0  # further ones, about somebody whom whoever asks may not see

    def __bool__(self) -> bool:
        return bool(self.found or self.hidden)


def in_the_way(store: Store, geometry: Geometry, pairs: Iterable[Pair], opinions: Sequence[Opinion]) -> Hindrances:
    """What keeps passages apart that are one person by these opinions. pairs: of the names of those that it is about.

    geometry: of the district. opinions: all of it. Of what is found only what may be seen is told (`Store.signed_in`).
    """
    with store.begin() as connection:
        found = _found(connection, geometry, {*pairs}, opinions)
    keys = [passage.key for one in found for passage in (one.held, one.other)]
    with store.signed_in() as connection:
        seen = {bytes(key) for key in connection.execute(_SEEN, {"keys": keys}).scalars()} if keys else set()
    shown = [one for one in found if {one.held.key, one.other.key} <= seen]
    return Hindrances(shown, len(found) - len(shown))


def _found(connection: Connection, geometry: Geometry, pairs: set[Pair], opinions: Sequence[Opinion]) -> list[InTheWay]:
    must, cannot = implied(opinions)
    people = _people(must, {name for pair in pairs & must for name in pair})
    about = [one for one in opinions if {*one.pair} & people]
    name_of = {one.id: one.name for one in versions_of(connection, about) if one.name in people}
    holders = connection.execute(_HOLDERS, {"tracklets": sorted(name_of)}).all()
    passages = passages_by_id(connection, sorted({t for row in holders for t in row.tracklets} | name_of.keys()))
    held: dict[bytes, list[Any]] = {}
    for row in holders:
        held.setdefault(name_of[row.tracklet], []).append(row)
    of_answer = {name_of[id_]: passages[id_] for id_ in sorted(name_of) if id_ in passages}
    found: dict[Pair, InTheWay] = {}
    for a, b in sorted(must):
        if a in of_answer and b in of_answer:
            one, other = of_answer[a], of_answer[b]
            for hindrance in _between(one, other, held, passages, geometry):
                known = found.get(hindrance.pair)
                if hindrance.pair not in cannot and (known is None or not known.is_certain):
                    found[hindrance.pair] = hindrance
    return sorted(found.values(), key=lambda one: (one.held.first_seen, one.other.first_seen, one.pair))


def _between(
    one: Passage,
    other: Passage,
    held: Mapping[bytes, Sequence[Any]],
    passages: Mapping[int, Passage],
    geometry: Geometry,
) -> list[InTheWay]:
    """Whoever was joined with one of both below their common unit, and cannot be the other one, or whom that was joined
    with. held: of all that are one person by what is said, their holders.
    """
    above = unit_above({one.camera, other.camera})
    sides = []
    for side in (one, other):
        company: dict[bytes, tuple[Passage, str]] = {}
        for row in sorted(held.get(side.name, ()), key=lambda row: -len(row.unit)):
            if row.unit.startswith(f"{above}/"):
                for passage in (passages[t] for t in row.tracklets if t in passages):
                    company.setdefault(passage.name, (passage, row.unit))
        sides.append([found for name, found in company.items() if name not in held])
    certain = [
        InTheWay(side, passage, unit, why, True)
        for side, away, its in ((one, other, sides[0]), (other, one, sides[1]))
        for passage, unit in its
        if (why := why_impossible(passage, away, geometry))
    ]
    if certain:
        return certain
    return [
        hindrance
        for left, left_unit in sides[0]
        for right, right_unit in sides[1]
        if (why := why_impossible(left, right, geometry))
        for hindrance in (InTheWay(one, left, left_unit, why, False), InTheWay(other, right, right_unit, why, False))
    ]


def _people(must: set[Pair], names: set[bytes]) -> set[bytes]:
    """The names, and all that are one person with one of them. must: with all that follows."""
    return names.union(*(pair for pair in must if names & {*pair}))
