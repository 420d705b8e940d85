"""What the report says of the whole district: counts of its units, its sightings and who they are taken for."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from schemas.levels import UPWARD, Level, is_within, level_of, parent_of


@dataclass(frozen=True)
class UnitCounts:
    """One unit, with its own identities and decisions and the crops and tracklets of all cameras below it."""

    code: str
    name: str
    crops: int
    tracklets: int
    identities: int  # a camera's are its tracklets
    joins: int
    reviews: int
    apart: int

    @property
    def level(self) -> Level:
        return level_of(self.code)

    @property
    def parent(self) -> str | None:
        return parent_of(self.code)


_IN = "({0} = :district OR starts_with({0}, :district || '/'))"

_UNITS = text(
    "SELECT u.code, u.name, coalesce(c.crops, 0) AS crops, coalesce(n.identities, 0) AS identities, "
    "coalesce(d.joins, 0) AS joins, coalesce(d.reviews, 0) AS reviews, coalesce(d.apart, 0) AS apart "
    "FROM urban_unit u "
    "LEFT JOIN (SELECT camera, count(*) AS crops FROM crop GROUP BY 1) AS c ON c.camera = u.code "
    "LEFT JOIN (SELECT unit, count(*) AS identities FROM identity_now GROUP BY 1) AS n ON n.unit = u.code "
    "LEFT JOIN (SELECT r.unit, count(*) FILTER (WHERE verdict = 'join') AS joins, "
    "  count(*) FILTER (WHERE verdict = 'review') AS reviews, count(*) FILTER (WHERE verdict = 'apart') AS apart "
    "  FROM match_decision m JOIN run r ON r.id = m.run_id WHERE r.superseded_at IS NULL GROUP BY 1) AS d "
    f'ON d.unit = u.code WHERE {_IN.format("u.code")} ORDER BY u.code COLLATE "C"'
)


def read_units(connection: Connection, district: str) -> list[UnitCounts]:
    """The district and all units below it, a parent before its children."""
    own = [UnitCounts(tracklets=0, **row._mapping) for row in connection.execute(_UNITS, {"district": district})]
    cameras = [unit for unit in own if unit.level is Level.CAMERA]
    counted = []
    for unit in own:
        below = [camera for camera in cameras if is_within(camera.code, unit.code)]
        tracklets = sum(camera.identities for camera in below)
        counted.append(replace(unit, crops=sum(camera.crops for camera in below), tracklets=tracklets))
    return counted


@dataclass(frozen=True)
class Sighting:
    """A tracklet: one person in one passage before one camera."""

    id: int
    persistent_id: UUID
    camera: str
    first_seen: datetime
    last_seen: datetime
    timed: bool
    crops: int
    truth: str | None  # the commonest of its crops, where any carries one
    held_by: Mapping[Level, UUID] = field(default_factory=dict)  # who it belongs to now, a level


_TRUTH = (
    "LEFT JOIN LATERAL (SELECT mode() WITHIN GROUP (ORDER BY ct.truth) AS truth FROM identity_member m "
    "JOIN crop_truth ct ON ct.crop_id = m.crop_id WHERE m.identity_id = t.id) AS said ON true"
)
_SIGHTING = "t.id, t.persistent_id, t.unit AS camera, t.first_seen, t.last_seen, t.timed, t.crops, said.truth"

_SIGHTINGS = text(
    f"SELECT {_SIGHTING}, t.key FROM identity_now t {_TRUTH} "
    "WHERE t.level = 'camera' AND starts_with(t.unit, :district || '/') ORDER BY t.first_seen, t.last_seen, t.key"
)

# By key and not by row: a camera's window that was resolved again may have written the same tracklet once more.
_HOLDERS = text(
    "SELECT k.key, n.level, n.persistent_id FROM identity_now n CROSS JOIN unnest(n.tracklets) AS below(id) "
    f"JOIN identity k ON k.id = below.id WHERE n.level <> 'camera' AND {_IN.format('n.unit')}"
)

_SIGHTINGS_BY_ID = text(f"SELECT {_SIGHTING} FROM identity t {_TRUTH} WHERE t.id = ANY(:ids)")


def read_sightings(connection: Connection, district: str) -> list[Sighting]:
    """All current tracklets of the district in time order, each with the identities that hold it now."""
    held: dict[bytes, dict[Level, UUID]] = defaultdict(dict)
    for row in connection.execute(_HOLDERS, {"district": district}):
        held[bytes(row.key)][Level(row.level)] = row.persistent_id
    rows = connection.execute(_SIGHTINGS, {"district": district})
    return [_sighting(row, held[bytes(row.key)]) for row in rows]


def sightings_by_id(connection: Connection, ids: Sequence[int]) -> dict[int, Sighting]:
    """Tracklets that some version of an identity holds, current or not; without who holds them now."""
    rows = connection.execute(_SIGHTINGS_BY_ID, {"ids": sorted(set(ids))})
    return {row.id: _sighting(row, {}) for row in rows}


def _sighting(row: Any, held_by: Mapping[Level, UUID]) -> Sighting:
    values = (row.id, row.persistent_id, row.camera, row.first_seen, row.last_seen, row.timed, row.crops, row.truth)
    return Sighting(*values, held_by=held_by)


@dataclass(frozen=True)
class Person:
    """An identity of the district, with its sightings in time order."""

    persistent_id: UUID
    sightings: list[Sighting]

    @property
    def buildings(self) -> int:
        return len({parent_of(sighting.camera) for sighting in self.sightings})

    @property
    def cameras(self) -> int:
        return len({sighting.camera for sighting in self.sightings})

    @property
    def crops(self) -> int:
        return sum(sighting.crops for sighting in self.sightings)

    @property
    def timed(self) -> bool:
        return all(sighting.timed for sighting in self.sightings)

    @property
    def first_seen(self) -> datetime:
        return self.sightings[0].first_seen

    @property
    def last_seen(self) -> datetime:
        return max(sighting.last_seen for sighting in self.sightings)

    @property
    def truths(self) -> list[tuple[str, int]]:
        """Who they are said to be and in how many sightings, the commonest first; empty where no truth is known."""
        counts = Counter(sighting.truth for sighting in self.sightings if sighting.truth is not None)
        return sorted(counts.items(), key=lambda said: (-said[1], said[0]))

    @property
    def mostly(self) -> str | None:
        return self.truths[0][0] if self.truths else None


def people_of(sightings: Sequence[Sighting]) -> list[Person]:
    """The district's identities, the most traveled first: by buildings, then cameras, then sightings."""
    held: dict[UUID, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        if Level.DISTRICT in sighting.held_by:
            held[sighting.held_by[Level.DISTRICT]].append(sighting)
    people = [Person(persistent_id, theirs) for persistent_id, theirs in held.items()]
    return sorted(
        people, key=lambda p: (-p.buildings, -p.cameras, -len(p.sightings), p.first_seen, str(p.persistent_id))
    )


@dataclass(frozen=True)
class Spread:
    """How many decisions of a level fell at which distance: (from, joins, reviews, kept apart) a bin."""

    width: float
    bins: list[tuple[float, int, int, int]]


_SPREAD = text(
    "SELECT r.level, d.verdict, floor(d.distance / :width) AS bin, count(*) AS many FROM match_decision d "
    "JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL AND r.model_id = :model "
    f"AND {_IN.format('r.unit')} GROUP BY 1, 2, 3"
)


def read_spread(
    connection: Connection, district: str, model_id: int | None, width: float = 0.04
) -> dict[Level, Spread]:
    """Of the decisions that one model made: distances of two models do not belong on one axis."""
    counts: dict[Level, Counter[tuple[int, str]]] = {level: Counter() for level in UPWARD[1:]}
    for row in connection.execute(_SPREAD, {"district": district, "model": model_id, "width": width}):
        counts[Level(row.level)][int(row.bin), row.verdict] = row.many
    return {
        level: Spread(
            width,
            [
                (number * width, found[number, "join"], found[number, "review"], found[number, "apart"])
                for number in sorted({number for number, _ in found})
            ],
        )
        for level, found in counts.items()
    }
