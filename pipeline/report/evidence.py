"""Match decisions with their evidence: the two sides as they were when it was decided, and what was measured."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.report.identities import Sighted, Tracklet, tracklets_by_id
from pipeline.report.states import State, find_states
from schemas.association import Verdict
from schemas.levels import UPWARD, Level, level_of

#: Most tracklets of a side that are read; a side may have thousands.
_TRACKLETS = 60


@dataclass(frozen=True)
class Side(Sighted):
    """One side of a decision, as it was when it was decided."""

    key: bytes
    level: Level | None  # None: a state of the run that can no longer be found
    tracklets: list[Tracklet]  # in time order, at most _TRACKLETS, spread evenly; empty if it cannot be found
    count: int  # of all its tracklets
    holder: UUID | None  # the identity at the decision's level that holds most of them now

    @property
    def cameras(self) -> list[str]:
        return sorted({tracklet.camera for tracklet in self.tracklets})

    @property
    def truth(self) -> str | None:
        """The person that most of its tracklets show, None without ground truth."""
        counts = Counter(tracklet.truth for tracklet in self.tracklets if tracklet.truth is not None)
        return min(counts, key=lambda truth: (-counts[truth], truth)) if counts else None


@dataclass(frozen=True)
class Evidence:
    """The columns of match_decision, and both sides."""

    unit: str
    window_start: datetime
    model: str  # that the distance is of
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
        """Both sides, the earlier one first if the times are known."""
        return (self.right, self.left) if self._right_first else (self.left, self.right)

    @property
    def way(self) -> tuple[str, str]:
        """The child units between which the gap lies, in the order of `in_order`."""
        return (self.right_at, self.left_at) if self._right_first else (self.left_at, self.right_at)

    @property
    def _right_first(self) -> bool:
        known = bool(self.left.tracklets and self.right.tracklets)
        return known and self.right.first_seen < self.left.first_seen

    @property
    def same(self) -> bool | None:
        """Whether both sides are one person by the ground truth; None if either side has none."""
        if self.left.truth is None or self.right.truth is None:
            return None
        return self.left.truth == self.right.truth

    @property
    def joined_since(self) -> bool:
        """Whether later evidence joined both sides into one identity."""
        return self.left.holder is not None and self.left.holder == self.right.holder


# At each level the decisions nearest to the operating point; without calibration those with the smallest distance.
_DECISIONS = text(
    "SELECT * FROM (SELECT r.id AS run_id, r.unit, r.level, r.window_start, w.name AS model, d.*, "
    "  row_number() OVER (PARTITION BY r.level ORDER BY abs(d.probability - d.operating_point), d.distance, "
    "  d.left_key, d.right_key) AS place FROM match_decision d JOIN run r ON r.id = d.run_id "
    "  JOIN model w ON w.id = r.model_id WHERE r.superseded_at IS NULL "
    "  AND (r.unit = :district OR starts_with(r.unit, :district || '/')) AND d.verdict = :verdict "
    "  AND d.left_key IS NOT NULL AND d.right_key IS NOT NULL) AS ranked "
    "WHERE place <= :most ORDER BY level DESC, place"
)


def read_evidence(
    connection: Connection, district: str, verdict: Verdict, most: int, current: Sequence[Tracklet]
) -> list[Evidence]:
    """At most `most` current decisions of each level, nearest to the operating point first; the district first.

    `current`: the district's current tracklets, whose identities give each side's `holder`.
    """
    rows = connection.execute(_DECISIONS, {"district": district, "verdict": verdict.value, "most": most}).all()
    states = find_states(connection, [(row.run_id, bytes(key)) for row in rows for key in _keys(row)])
    tracklets = tracklets_by_id(connection, [t for state in states.values() for t in _sample(state.tracklets)])
    holders = {tracklet.persistent_id: tracklet.held_by for tracklet in current}

    def side(run_id: int, key: bytes, level: Level) -> Side:
        return _side(key, states.get((run_id, key)), tracklets, holders, level)

    found = []
    for row in rows:
        level = Level(row.level)
        runner_up = None if row.runner_up_key is None else side(row.run_id, bytes(row.runner_up_key), level)
        found.append(
            Evidence(
                unit=row.unit,
                window_start=row.window_start,
                model=row.model,
                verdict=verdict,
                left=side(row.run_id, bytes(row.left_key), level),
                right=side(row.run_id, bytes(row.right_key), level),
                runner_up=runner_up,
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


def _sample(ids: Sequence[int]) -> list[int]:
    """At most _TRACKLETS of the ids, spread evenly."""
    if len(ids) <= _TRACKLETS:
        return list(ids)
    return [ids[i * len(ids) // _TRACKLETS] for i in range(_TRACKLETS)]


def _side(
    key: bytes,
    state: State | None,
    tracklets: Mapping[int, Tracklet],
    holders: Mapping[UUID, Mapping[Level, UUID]],
    level: Level,
) -> Side:
    if state is None:
        return Side(key, None, [], 0, None)
    shown = sorted(
        (tracklets[t] for t in _sample(state.tracklets) if t in tracklets),
        key=lambda t: (t.first_seen, t.last_seen, t.id),
    )
    held = Counter(holder for t in shown if (holder := holders.get(t.persistent_id, {}).get(level)) is not None)
    holder = min(held, key=lambda one: (-held[one], str(one))) if held else None
    return Side(key, state.level, shown, len(state.tracklets), holder)


@dataclass(frozen=True)
class OpenPair:
    """Two identities of a unit that wait for review: the most probable decision about them, and the number of all."""

    evidence: Evidence
    decisions: int


def open_pairs(reviews: Sequence[Evidence]) -> list[OpenPair]:
    """The pairs that wait for review, the district first, then by probability; without pairs that were joined since."""
    waiting: dict[tuple[str, frozenset[object]], list[Evidence]] = defaultdict(list)
    for review in reviews:
        if not review.joined_since:
            ends = frozenset((review.left.holder or review.left.key, review.right.holder or review.right.key))
            waiting[review.unit, ends].append(review)
    pairs = [OpenPair(max(decisions, key=_likeliness), len(decisions)) for decisions in waiting.values()]
    return sorted(
        pairs, key=lambda pair: (-UPWARD.index(pair.evidence.level), *(-x for x in _likeliness(pair.evidence)))
    )


def _likeliness(evidence: Evidence) -> tuple[float, float]:
    """Sorts by probability, then by distance."""
    return evidence.probability or 0.0, -evidence.distance
