"""Why the passages of an identity were put together: each join of them, in words and in figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.association.log_odds import probability
from pipeline.report.identities import Tracklet, tracklets_by_id
from pipeline.report.states import State, find_states
from pipeline.report.thumbnails import Picture, best, pictures_of
from schemas.text import said

#: Most joins that a page shows, the least certain.
MOST = 40

# Of all versions of the identity and of everything below them: the current decisions that joined two of them.
_JOINS = text(
    "WITH RECURSIVE below AS (SELECT i.id, i.key FROM identity i WHERE i.persistent_id = :identity AND i.unit = :unit "
    "  UNION SELECT c.id, c.key FROM below b JOIN identity_member m ON m.identity_id = b.id "
    "  JOIN identity c ON c.id = m.child_id), "
    "keys AS (SELECT DISTINCT key FROM below), "
    "found AS (SELECT d.id FROM keys k JOIN match_decision d ON d.left_key = k.key WHERE d.verdict = 'join' "
    "  AND d.right_key IN (SELECT key FROM keys)) "
    "SELECT r.id AS run_id, r.unit, r.window_start, d.left_key, d.right_key, d.distance, d.appearance_log_odds, "
    "d.transit_log_odds, d.probability, d.operating_point, d.gap_s, d.left_at, d.right_at, d.runner_up_distance "
    "FROM found JOIN match_decision d ON d.id = found.id JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL "
    "ORDER BY d.probability, d.id LIMIT :most"
)


@dataclass(frozen=True)
class Side:
    """One of the two that were joined: where it was seen, when, and one picture of it."""

    at: str  # the unit below the deciding one
    seen: datetime | None  # None: it cannot be found any more, or its time is not known
    picture: Picture | None


@dataclass(frozen=True)
class Join:
    """A join. `look`: probability by looks alone; `transit_log_odds`: what the time between both adds to it."""

    unit: str
    sides: tuple[Side, Side]  # the earlier one first
    distance: float
    look: float
    transit_log_odds: float
    probability: float
    operating_point: float
    gap_s: float | None
    runner_up_distance: float | None

    @property
    def looks(self) -> str:
        if self.look >= 0.99:
            return said("They look so much alike that hardly any two people do")
        if self.look >= 0.9:
            return said("They look very much alike")
        if self.look >= 0.5:
            return said("They look alike")
        return said("By looks alone they would not have been joined")

    @property
    def time(self) -> str:
        if self.gap_s is None:
            return said("the times are not known, and say nothing")
        if self.transit_log_odds >= 1:
            return said("the time between both is just what people need for this way")
        if self.transit_log_odds > -1:
            return said("the time between both fits, and says little")
        return said("the time between both is unusual for this way, and speaks against it")

    @property
    def rival(self) -> str:
        if self.runner_up_distance is None:
            return said("There was nobody else to compare with.")
        if self.runner_up_distance - self.distance > 0.15:
            return said("Nobody else looked nearly as much alike.")
        return said("Somebody else looked almost as much alike.")


def read_joins(connection: Connection, unit: str, identity: UUID, most: int = MOST) -> Sequence[Join]:
    """The joins of an identity that count now, the least certain first."""
    rows = connection.execute(_JOINS, {"identity": identity, "unit": unit, "most": most}).all()
    keys = [(row.run_id, bytes(key)) for row in rows for key in (row.left_key, row.right_key)]
    states = find_states(connection, keys)
    ends = {key: _ends(state) for key, state in states.items()}
    tracklets = tracklets_by_id(connection, [t for both in ends.values() for t in both])
    pictures = pictures_of(connection, tracklets)
    return [_join(row, states, tracklets, pictures) for row in rows]


def _ends(state: State) -> list[int]:
    """Tracklets of which the nearest one to the other side is shown: the first and the last ones written."""
    return [*state.tracklets[:8], *state.tracklets[-8:]]


def _join(
    row: Any,
    states: Mapping[tuple[int, bytes], State],
    tracklets: Mapping[int, Tracklet],
    pictures: Mapping[int, list[Picture]],
) -> Join:
    def seen(key: bytes) -> list[Tracklet]:
        state = states.get((row.run_id, bytes(key)))
        found = [] if state is None else [tracklets[t] for t in _ends(state) if t in tracklets]
        return sorted(found, key=lambda tracklet: (tracklet.first_seen, tracklet.id))

    left, right = seen(row.left_key), seen(row.right_key)
    ways = (row.left_at, row.right_at)
    if left and right and right[0].first_seen < left[0].first_seen:
        left, right, ways = right, left, (row.right_at, row.left_at)
    return Join(
        unit=row.unit,
        sides=(_side(ways[0], left[-1:], pictures), _side(ways[1], right[:1], pictures)),
        distance=row.distance,
        look=probability(row.appearance_log_odds),
        transit_log_odds=row.transit_log_odds,
        probability=row.probability,
        operating_point=row.operating_point,
        gap_s=row.gap_s,
        runner_up_distance=row.runner_up_distance,
    )


def _side(at: str, shown: Sequence[Tracklet], pictures: Mapping[int, list[Picture]]) -> Side:
    if not shown:
        return Side(at, None, None)
    (tracklet,) = shown
    its = pictures.get(tracklet.id, [])
    return Side(at, tracklet.first_seen if tracklet.timed else None, best(its) if its else None)
