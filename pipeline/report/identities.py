"""The district's current tracklets and identities, as the report shows them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from schemas.levels import Level, parent_of


@dataclass(frozen=True)
class Tracklet:
    """One passage of a person before one camera."""

    id: int
    persistent_id: UUID
    camera: str
    first_seen: datetime
    last_seen: datetime
    timed: bool
    crops: int
    truth: str | None  # the most frequent ground truth of its crops, None if no crop has one
    held_by: Mapping[Level, UUID] = field(default_factory=dict)  # current identity (persistent id) by level


_TRUTH = (
    "LEFT JOIN LATERAL (SELECT mode() WITHIN GROUP (ORDER BY ct.truth) AS truth FROM identity_member m "
    "JOIN crop_truth ct ON ct.crop_id = m.crop_id WHERE m.identity_id = t.id) AS labeled ON true"
)
_TRACKLET = "t.id, t.persistent_id, t.unit AS camera, t.first_seen, t.last_seen, t.timed, t.crops, labeled.truth"

_TRACKLETS = text(
    f"SELECT {_TRACKLET}, t.key FROM identity_now t {_TRUTH} "
    "WHERE t.level = 'camera' AND starts_with(t.unit, :district || '/') ORDER BY t.first_seen, t.last_seen, t.key"
)

# By key and not by id: when a camera's window is resolved again, the same tracklet may get another row.
_HOLDERS = text(
    "SELECT k.key, n.level, n.persistent_id FROM identity_now n CROSS JOIN unnest(n.tracklets) AS below(id) "
    "JOIN identity k ON k.id = below.id "
    "WHERE n.level <> 'camera' AND (n.unit = :district OR starts_with(n.unit, :district || '/'))"
)

_TRACKLETS_BY_ID = text(f"SELECT {_TRACKLET} FROM identity t {_TRUTH} WHERE t.id = ANY(:ids)")


def read_tracklets(connection: Connection, district: str) -> list[Tracklet]:
    """All current tracklets of the district in time order, with the identities that hold them now."""
    held: dict[bytes, dict[Level, UUID]] = defaultdict(dict)
    for row in connection.execute(_HOLDERS, {"district": district}):
        held[bytes(row.key)][Level(row.level)] = row.persistent_id
    rows = connection.execute(_TRACKLETS, {"district": district})
    return [_tracklet(row, held[bytes(row.key)]) for row in rows]


def tracklets_by_id(connection: Connection, ids: Sequence[int]) -> dict[int, Tracklet]:
    """Tracklets, current or not, by the id of their row; `held_by` is empty."""
    rows = connection.execute(_TRACKLETS_BY_ID, {"ids": sorted(set(ids))})
    return {row.id: _tracklet(row, {}) for row in rows}


def _tracklet(row: Any, held_by: Mapping[Level, UUID]) -> Tracklet:
    values = (row.id, row.persistent_id, row.camera, row.first_seen, row.last_seen, row.timed, row.crops, row.truth)
    return Tracklet(*values, held_by=held_by)


class Sighted:
    """When the tracklets of a subclass were seen."""

    tracklets: list[Tracklet]  # in time order

    @property
    def timed(self) -> bool:
        return all(tracklet.timed for tracklet in self.tracklets)

    @property
    def first_seen(self) -> datetime:
        return self.tracklets[0].first_seen

    @property
    def last_seen(self) -> datetime:
        return max(tracklet.last_seen for tracklet in self.tracklets)


@dataclass(frozen=True)
class DistrictIdentity(Sighted):
    """An identity of the district, with its tracklets in time order."""

    persistent_id: UUID
    tracklets: list[Tracklet]

    @property
    def buildings(self) -> int:
        return len({parent_of(tracklet.camera) for tracklet in self.tracklets})

    @property
    def cameras(self) -> int:
        return len({tracklet.camera for tracklet in self.tracklets})

    @property
    def crops(self) -> int:
        return sum(tracklet.crops for tracklet in self.tracklets)

    @property
    def truths(self) -> list[tuple[str, int]]:
        """People in the ground truth with the number of their tracklets, the most frequent first."""
        counts = Counter(tracklet.truth for tracklet in self.tracklets if tracklet.truth is not None)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    @property
    def main_truth(self) -> str | None:
        """The person that most of its tracklets show, None without ground truth."""
        return self.truths[0][0] if self.truths else None


def identities_of(tracklets: Sequence[Tracklet]) -> list[DistrictIdentity]:
    """The district's identities, sorted by number of buildings, cameras and tracklets, the largest first."""
    held: dict[UUID, list[Tracklet]] = defaultdict(list)
    for tracklet in tracklets:
        if Level.DISTRICT in tracklet.held_by:
            held[tracklet.held_by[Level.DISTRICT]].append(tracklet)
    identities = [DistrictIdentity(persistent_id, its) for persistent_id, its in held.items()]
    return sorted(
        identities, key=lambda i: (-i.buildings, -i.cameras, -len(i.tracklets), i.first_seen, str(i.persistent_id))
    )
