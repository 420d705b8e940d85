"""The pairs that a level compared and the joins that it made, with the truth: what a calibration learns from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from pipeline.association.associate import Shortlist
from pipeline.association.log_odds import log_odds
from pipeline.association.transit import bind
from pipeline.calibration.pairs import fit_pairs
from pipeline.resolve.window_nodes import Node
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import PairTerms, TransitTimes
from schemas.levels import Level, parent_of


@dataclass(frozen=True)
class Compared:
    """Pairs that the resolve of a level shortlisted, with their truth."""

    distance: Floats  # (p,) attended
    timed: Bools  # (p,)
    gap_s: Floats  # (p,)
    way_s: Floats  # (p,) NaN where nothing is known of the way
    left_child: Ints  # (p,) place among the children of all units of the level
    right_child: Ints  # (p,)
    left_weight: Floats  # (p,)
    right_weight: Floats  # (p,)
    same: Bools  # (p,) one person: the one that most of their crops show
    district: Ints  # (p,) which of the cities it is of

    def __len__(self) -> int:
        return len(self.same)

    def take(self, rows: Bools) -> "Compared":
        return Compared(**{name: column[rows] for name, column in vars(self).items()})

    def transit(self, times: TransitTimes, children: Sequence[str]) -> Floats:
        """(p,) log-odds of the times between."""
        found = bind(times, children).log_odds(self.left_child, self.right_child, self.way_s, self.gap_s)
        return np.where(self.timed, found, 0.0)

    def log_odds(self, terms: PairTerms, transit: Floats) -> Floats:
        return log_odds(terms, self.distance, transit, self.left_weight, self.right_weight)

    def fit(self, transit: Floats) -> PairTerms | None:
        return fit_pairs(self.distance, transit, self.left_weight, self.right_weight, self.same)


class Observed:
    """Gathers what the windows of a level's units compared."""

    def __init__(self, children: Sequence[str], truth: Mapping[int, str]) -> None:
        """`truth`: the person of each tracklet, by its id."""
        self._place = {code: place for place, code in enumerate(children)}
        self._truth = truth
        self._parts: list[Compared] = []

    def observer(self, unit: str, district: int) -> Callable[[Sequence[Node], Shortlist], None]:
        """For `resolve_unit`."""
        children = sorted(code for code in self._place if parent_of(code) == unit)
        place = np.array([self._place[code] for code in children], dtype=np.int64)

        def observe(candidates: Sequence[Node], found: Shortlist) -> None:
            people = np.array([mostly(node.identity.tracklets, self._truth) for node in candidates], dtype=object)
            weight = np.array([node.prototypes.weight for node in candidates])
            left, right, scores = found.left, found.right, found.scores
            known = (people[left] != "") & (people[right] != "")
            part = Compared(
                scores.distance,
                scores.timed,
                scores.gap_us / 1e6,
                scores.way_s,
                place[scores.left_child],
                place[scores.right_child],
                weight[left],
                weight[right],
                people[left] == people[right],
                np.full(len(left), district),
            )
            if known.any():
                self._parts.append(part.take(known))

        return observe

    def all(self) -> Compared | None:
        if not self._parts:
            return None
        names = vars(self._parts[0])
        return Compared(**{name: np.concatenate([getattr(part, name) for part in self._parts]) for name in names})


_TRUTHS = (
    "SELECT m.identity_id, min(t.truth) AS truth FROM identity i JOIN identity_member m ON m.identity_id = i.id "
    "JOIN crop_truth t ON t.crop_id = m.crop_id WHERE i.level = 'camera' GROUP BY 1"
)


def tracklet_truths(connection: Connection) -> dict[int, str]:
    """The person of each tracklet whose crops carry a truth, by its id; a simulated tracklet shows one person."""
    rows = copy_out(connection, _TRUTHS, {}, {"id": "int8", "truth": "text"})
    return dict(zip(np.asarray(rows["id"]).tolist(), rows["truth"], strict=True))


def mostly(tracklets: Iterable[int], truth: Mapping[int, str]) -> str:
    """The person of most of the tracklets, the first by name of equals; empty where none is known."""
    people = sorted(truth[t] for t in tracklets if t in truth)
    return max(people, key=people.count, default="")


_JOINED = (
    "SELECT (SELECT min(i.id) FROM identity i WHERE i.key = d.left_key) AS left_id, "
    "(SELECT min(i.id) FROM identity i WHERE i.key = d.right_key) AS right_id FROM match_decision d "
    "JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL AND r.level = CAST(:level AS unit_level) "
    "AND (r.unit = :district OR starts_with(r.unit, :district || '/')) AND d.verdict = 'join'"
)
_BELOW = (
    "SELECT i.id, below.id AS tracklet FROM identity i CROSS JOIN unnest(i.tracklets) AS below(id) "
    "WHERE i.id = ANY(:ids)"
)


def wrong_joins(store: Store, district: str, level: Level, truth: Mapping[int, str]) -> tuple[Bools, Ints]:
    """Of the joins made at a level: (j,) whether the two sides show two people, and (j,) a number of the left one's.

    `truth`: of tracklets, by their ids. A side shows whom most of its tracklets do. Joins of sides that nobody labeled
    are left out.
    """
    with store.begin() as connection:
        at = {"level": level.value, "district": district}
        rows = copy_out(connection, _JOINED, at, {"left": "int8?", "right": "int8?"})
        sides = [(a, b) for a, b in zip(rows["left"], rows["right"], strict=True) if a is not None and b is not None]
        ids = sorted({one for pair in sides for one in pair})
        below = copy_out(connection, _BELOW, {"ids": ids}, {"id": "int8", "tracklet": "int8"}) if ids else {}
    held: dict[int, list[int]] = {}
    for own, tracklet in zip(below.get("id", ()), below.get("tracklet", ()), strict=True):
        held.setdefault(int(own), []).append(int(tracklet))
    shown = {own: mostly(its, truth) for own, its in held.items()}
    known = [(shown[a], shown[b]) for a, b in sides if shown.get(a) and shown.get(b)]
    numbers = {name: number for number, name in enumerate(sorted(set(shown.values())))}
    return (
        np.array([a != b for a, b in known], dtype=bool),
        np.array([numbers[a] for a, _ in known], dtype=np.int64),
    )
