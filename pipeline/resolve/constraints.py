"""Answers of reviewers as constraints of a resolve: which passages must be one person, and which cannot be.

A passage is named by the key of its tracklet's first crop, which late crops and resolving again leave as it is. Of one
pair the newest answer of each reviewer counts, and most of them decide; where as many say the one as the other, nothing
holds. What was done by hand, a merge or a split, is about groups: of one pair the newest counts, whoever did it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.resolve.rows import Identity
from schemas.levels import is_within
from schemas.review import BY_HAND, Said, Way

Pair = tuple[bytes, bytes]  # names of two passages, the lower one first

_OPINIONS = (
    "SELECT DISTINCT ON (p.left_crop, p.right_crop, a.reviewer) p.left_crop, p.right_crop, p.left_key, p.right_key, "
    "p.unit, a.id, a.at, a.reviewer, a.said, a.way FROM review_pair p JOIN review_answer a ON a.id = p.answer_id "
    "WHERE (:unit = '' OR p.unit = :unit OR starts_with(p.unit, :unit || '/')) "
    "AND (CAST(:before AS timestamptz) IS NULL OR a.at < :before) AND NOT EXISTS (SELECT FROM review_undo u "
    "  WHERE u.answer_id = a.id AND (CAST(:before AS timestamptz) IS NULL OR u.at < :before)) "
    "AND a.id IS DISTINCT FROM CAST(:without AS uuid) {} "
    "ORDER BY p.left_crop, p.right_crop, a.reviewer, a.at DESC, a.id"
)
_ALL, _AMONG = (
    text(_OPINIONS.format(which)) for which in ("", "AND p.left_crop = ANY(:names) AND p.right_crop = ANY(:names)")
)
# Every version of the tracklets; that of the key where its crops have gone by age.
_TRACKLETS = text(
    "WITH n (crop, key) AS (SELECT * FROM unnest(CAST(:crops AS bytea[]), CAST(:keys AS bytea[]))) "
    "SELECT i.id, n.crop, i.unit, i.window_start FROM n JOIN crop c ON c.key = n.crop "
    "JOIN identity_member m ON m.crop_id = c.id JOIN identity i ON i.id = m.identity_id WHERE i.level = 'camera' "
    "UNION SELECT i.id, n.crop, i.unit, i.window_start FROM n JOIN identity i ON i.key = n.key "
    "WHERE i.level = 'camera' ORDER BY 1, 2"
)


@dataclass(frozen=True)
class Opinion:
    """What one reviewer says of a pair now, or said at a moment."""

    pair: Pair
    keys: Pair  # of the tracklets that were looked at, in the same order
    unit: str  # the lowest one above both cameras
    answer: UUID
    at: datetime
    reviewer: str
    said: Said
    way: Way

    @property
    def vote(self) -> int:
        return {Said.SAME: 1, Said.DIFFERENT: -1, Said.UNSURE: 0}[self.said]


def read_opinions(
    connection: Connection,
    unit: str = "",
    before: datetime | None = None,
    among: Collection[bytes] | None = None,
    without: UUID | None = None,
) -> list[Opinion]:
    """Of the pairs within a unit ('': the city) and of each reviewer the newest answer that is not undone.

    before: as it was at that moment. among: of pairs of these passages, by name. without: an answer that counts as
    undone.
    """
    asked = {"unit": unit, "before": before, "without": without} | ({} if among is None else {"names": sorted(among)})
    found = [
        Opinion(
            (bytes(row.left_crop), bytes(row.right_crop)),
            (bytes(row.left_key), bytes(row.right_key)),
            row.unit,
            row.id,
            row.at,
            row.reviewer,
            Said(row.said),
            Way(row.way),
        )
        for row in connection.execute(_ALL if among is None else _AMONG, asked)
    ]
    return that_count(found)


def that_count(opinions: Sequence[Opinion]) -> list[Opinion]:
    """Without what was done by hand to a pair that was parted or joined by hand again later."""
    newest: dict[Pair, Opinion] = {}
    for one in opinions:
        if one.way in BY_HAND:
            newest[one.pair] = max(one, newest.get(one.pair, one), key=lambda other: (other.at, other.answer))
    return [one for one in opinions if one.way not in BY_HAND or newest[one.pair] is one]


def votes(opinions: Iterable[Opinion]) -> dict[Pair, int]:
    """By pair: above 0 where most say that both are one person, below 0 where most say that they are not."""
    found: dict[Pair, int] = {}
    for one in opinions:
        found[one.pair] = found.get(one.pair, 0) + one.vote
    return found


@dataclass(frozen=True)
class Version:
    """A version of the tracklet that a passage is."""

    id: int
    name: bytes  # of the passage
    camera: str
    window: datetime


def versions_of(connection: Connection, opinions: Iterable[Opinion]) -> list[Version]:
    """Every version of the tracklets that the opinions are about, by id."""
    sides = sorted({side for one in opinions for side in zip(one.pair, one.keys, strict=True)})
    asked = {"crops": [crop for crop, _ in sides], "keys": [key for _, key in sides]}
    rows = connection.execute(_TRACKLETS, asked).all() if sides else []
    return [Version(row.id, bytes(row.crop), row.unit, row.window_start) for row in rows]


def tracklets_of(connection: Connection, opinions: Iterable[Opinion]) -> dict[int, list[bytes]]:
    """The names of the passages that each version of a tracklet is of, by its id."""
    return _names(versions_of(connection, opinions))


def _names(versions: Iterable[Version]) -> dict[int, list[bytes]]:
    names: dict[int, list[bytes]] = {}
    for one in versions:
        names.setdefault(one.id, []).append(one.name)
    return names


def implied(opinions: Iterable[Opinion]) -> tuple[set[Pair], set[Pair]]:
    """What most reviewers say, with all that follows: pairs of one person, and pairs of two.

    Whoever is one with a passage is one with all that it is one with, and not whom one of them is not.
    """
    held = votes(opinions)
    people: dict[bytes, frozenset[bytes]] = {}
    for pair, vote in held.items():
        if vote > 0:
            together = frozenset(pair).union(*(people.get(name, frozenset()) for name in pair))
            people |= dict.fromkeys(together, together)
    must = {pair for person in people.values() for pair in combinations(sorted(person), 2)}
    cannot: set[Pair] = set()
    for pair, vote in held.items():
        if vote < 0:
            sides = [people.get(name, frozenset({name})) for name in pair]
            cannot |= {(min(a, b), max(a, b)) for a in sides[0] for b in sides[1] if a != b}
    return must, cannot


@dataclass(frozen=True)
class Bound:
    """The constraints whose passages both take part in a window."""

    must: tuple[Pair, ...] = ()
    cannot: tuple[Pair, ...] = ()
    names: Mapping[int, Sequence[bytes]] = field(default_factory=dict)  # of passages, by tracklet id

    def __bool__(self) -> bool:
        return bool(self.must or self.cannot)

    @property
    def parts(self) -> list[bytes | str]:
        """For a run's key."""
        said = [("same", pair) for pair in self.must] + [("different", pair) for pair in self.cannot]
        return [part for word, (left, right) in said for part in (word, left, right)]

    def passages(self, tracklets: Sequence[int]) -> set[bytes]:
        """The names of those of the tracklets that a constraint is about."""
        return {name for tracklet in self.names.keys() & set(tracklets) for name in self.names[tracklet]}


@dataclass(frozen=True)
class Constraints(Bound):
    """What holds in a unit."""

    def within(self, children: Sequence[Identity], context: Sequence[Identity], touched: Collection[UUID]) -> Bound:
        """Those of a window. What is said of two passages of one identity that it leaves alone binds nothing."""
        if not self:
            return Bound()
        found = [
            (number, identity.persistent_id in touched, self.passages(identity.tracklets))
            for number, identity in enumerate([*context, *children])
            if not self.names.keys().isdisjoint(identity.tracklets)
        ]
        present = {name for _, _, names in found for name in names}
        left_alone = {name: number for number, is_touched, names in found if not is_touched for name in names}

        def binds(pair: Pair) -> bool:
            a, b = pair
            return {a, b} <= present and (a not in left_alone or left_alone[a] != left_alone.get(b))

        return Bound(
            tuple(pair for pair in self.must if binds(pair)),
            tuple(pair for pair in self.cannot if {*pair} <= present),
            self.names,
        )


def read_constraints(connection: Connection, unit: str, opinions: Iterable[Opinion] | None = None) -> Constraints:
    """What holds in a unit above the cameras, in a fixed order. opinions: of its district, instead of what is stored.

    What is said of passages in several units of the district may say something of two within this one.
    """
    if opinions is None:
        opinions = read_opinions(connection, unit.partition("/")[0])
    opinions = list(opinions)
    versions = [one for one in versions_of(connection, opinions) if is_within(one.camera, unit)]
    here = {one.name for one in versions}
    must, cannot = ({pair for pair in pairs if here.issuperset(pair)} for pairs in implied(opinions))
    return Constraints(tuple(sorted(must)), tuple(sorted(cannot)), _names(versions))
