"""Decisions with their evidence: who was compared, what was measured, and what the two sides looked like then."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.report.read import Sighting, sightings_by_id
from pipeline.report.states import State, find_states
from schemas.association import Verdict
from schemas.levels import UPWARD, Level, level_of

#: Sightings of one side that are looked up; a side may hold thousands.
_SIGHTINGS = 60


@dataclass(frozen=True)
class Side:
    """One side of a decision, as it was when it was decided."""

    key: bytes
    level: Level | None  # None: an intermediate state of the run that cannot be told any more
    sightings: list[Sighting]  # in time order, at most _SIGHTINGS; empty where it cannot be told
    many: int  # of all its sightings
    now: UUID | None  # who holds most of them now, at the decision's level

    @property
    def cameras(self) -> list[str]:
        return sorted({sighting.camera for sighting in self.sightings})

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
    def truth(self) -> str | None:
        counts = Counter(sighting.truth for sighting in self.sightings if sighting.truth is not None)
        return min(counts, key=lambda truth: (-counts[truth], truth)) if counts else None


@dataclass(frozen=True)
class Evidence:
    """The columns of match_decision, and both sides."""

    unit: str
    window_start: datetime
    model: str  # whose distance it is
    verdict: Verdict
    left: Side
    right: Side
    distance: float
    appearance_log_odds: float | None
    transit_log_odds: float
    probability: float | None
    operating_point: float | None
    gap_s: float | None
    left_at: str
    right_at: str
    runner_up: Side | None
    runner_up_distance: float | None

    @property
    def level(self) -> Level:
        return level_of(self.unit)

    @property
    def timed(self) -> bool:
        return self.left.timed and self.right.timed

    @property
    def in_order(self) -> tuple[Side, Side]:
        """Both sides, the earlier one first where it is known."""
        return (self.right, self.left) if self._turned else (self.left, self.right)

    @property
    def way(self) -> tuple[str, str]:
        """The units between which the gap lies, in the same order."""
        return (self.right_at, self.left_at) if self._turned else (self.left_at, self.right_at)

    @property
    def _turned(self) -> bool:
        known = bool(self.left.sightings and self.right.sightings)
        return known and self.right.first_seen < self.left.first_seen

    @property
    def same(self) -> bool | None:
        """Whether both sides truly are one person; None where that is not known."""
        if self.left.truth is None or self.right.truth is None:
            return None
        return self.left.truth == self.right.truth

    @property
    def settled(self) -> bool:
        """Whether later evidence brought both sides into one identity."""
        return self.left.now is not None and self.left.now == self.right.now


# Of each level the closest calls: the pairs nearest to the operating point, or to each other where there is none.
_DECISIONS = text(
    "SELECT * FROM (SELECT r.id AS run_id, r.unit, r.level, r.window_start, w.name AS model, d.*, "
    "  row_number() OVER (PARTITION BY r.level ORDER BY abs(d.probability - d.operating_point), d.distance, "
    "  d.left_key, d.right_key) AS place FROM match_decision d JOIN run r ON r.id = d.run_id "
    "  JOIN model w ON w.id = r.model_id WHERE r.superseded_at IS NULL "
    "  AND (r.unit = :district OR starts_with(r.unit, :district || '/')) AND d.verdict = :verdict) AS ranked "
    "WHERE place <= :most ORDER BY level DESC, place"
)


def read_evidence(
    connection: Connection, district: str, verdict: Verdict, most: int, now: Sequence[Sighting]
) -> list[Evidence]:
    """The current decisions of a verdict, from the district down, the closest calls of each level first.

    `most`: of each level. `now`: the district's current sightings, by which the sides' holders of today are told.
    """
    rows = connection.execute(_DECISIONS, {"district": district, "verdict": verdict.value, "most": most}).all()
    states = find_states(connection, [(row.run_id, bytes(key)) for row in rows for key in _keys(row)])
    looked_up = sightings_by_id(connection, [t for state in states.values() for t in _some(state.tracklets)])
    holders = {sighting.persistent_id: sighting.held_by for sighting in now}

    def side(run_id: int, key: bytes, level: Level) -> Side:
        return _side(key, states.get((run_id, key)), looked_up, holders, level)

    found = []
    for row in rows:
        level = Level(row.level)
        rival = None if row.runner_up_key is None else side(row.run_id, bytes(row.runner_up_key), level)
        found.append(
            Evidence(
                unit=row.unit,
                window_start=row.window_start,
                model=row.model,
                verdict=verdict,
                left=side(row.run_id, bytes(row.left_key), level),
                right=side(row.run_id, bytes(row.right_key), level),
                runner_up=rival,
                **{name: getattr(row, name) for name in _MEASURED},
            )
        )
    return found


_MEASURED = (
    "distance",
    "appearance_log_odds",
    "transit_log_odds",
    "probability",
    "operating_point",
    "gap_s",
    "left_at",
    "right_at",
    "runner_up_distance",
)


def _keys(row: Any) -> Iterable[bytes]:
    return (key for key in (row.left_key, row.right_key, row.runner_up_key) if key is not None)


def _some(ids: Sequence[int]) -> list[int]:
    """At most _SIGHTINGS of them, spread evenly."""
    if len(ids) <= _SIGHTINGS:
        return list(ids)
    return [ids[i * len(ids) // _SIGHTINGS] for i in range(_SIGHTINGS)]


def _side(
    key: bytes,
    state: State | None,
    looked_up: Mapping[int, Sighting],
    holders: Mapping[UUID, Mapping[Level, UUID]],
    level: Level,
) -> Side:
    if state is None:
        return Side(key, None, [], 0, None)
    sightings = sorted(
        (looked_up[t] for t in _some(state.tracklets) if t in looked_up),
        key=lambda s: (s.first_seen, s.last_seen, s.id),
    )
    held = Counter(holder for s in sightings if (holder := holders.get(s.persistent_id, {}).get(level)) is not None)
    now = min(held, key=lambda holder: (-held[holder], str(holder))) if held else None
    return Side(key, state.level, sightings, len(state.tracklets), now)


@dataclass(frozen=True)
class OpenPair:
    """Two identities of a unit that wait for a person, with the decision that says most, and how many say so."""

    evidence: Evidence
    decisions: int


def open_pairs(reviews: Sequence[Evidence]) -> list[OpenPair]:
    """The pairs of identities that still wait, the likeliest first; pairs that later evidence joined are left out."""
    waiting: dict[tuple[str, frozenset[object]], list[Evidence]] = defaultdict(list)
    for review in reviews:
        if not review.settled:
            ends = frozenset((review.left.now or review.left.key, review.right.now or review.right.key))
            waiting[review.unit, ends].append(review)
    pairs = [OpenPair(max(said, key=_likely), len(said)) for said in waiting.values()]
    return sorted(pairs, key=lambda pair: (-UPWARD.index(pair.evidence.level), *(-x for x in _likely(pair.evidence))))


def _likely(evidence: Evidence) -> tuple[float, float]:
    return evidence.probability or 0.0, -evidence.distance
