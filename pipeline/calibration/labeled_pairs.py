"""The pairs that a level compared and the joins that it made, with their truth."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from pipeline.association.associate import Shortlist
from pipeline.association.log_odds import log_odds
from pipeline.association.transit import unit_transit
from pipeline.calibration.pairs import fit_pairs
from pipeline.resolve.window_nodes import Node
from pipeline.store import Store
from pipeline.store.copy import copy_out
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import PairTerms, TransitTimes
from schemas.levels import Level, parent_of


@dataclass(frozen=True)
class ComparedPairs:
    """p pairs that the resolve of a level shortlisted, with their truth. `children`: of all units of the level."""

    distance: Floats  # (p,) attended
    timed: Bools  # (p,)
    gap_s: Floats  # (p,)
    expected_s: Floats  # (p,) NaN where unknown
    left_child: Ints  # (p,) index into `children`
    right_child: Ints  # (p,)
    left_weight: Floats  # (p,) of the prototypes
    right_weight: Floats  # (p,)
    same: Bools  # (p,) whether most tracklets of both sides show one person
    district: Ints  # (p,) number of the pair's city

    def __len__(self) -> int:
        return len(self.same)

    def take(self, rows: Bools) -> "ComparedPairs":
        return ComparedPairs(**{name: column[rows] for name, column in vars(self).items()})

    def transit(self, times: TransitTimes, children: Sequence[str]) -> Floats:
        """(p,) Transit log-odds; 0 for untimed pairs."""
        transit = unit_transit(times, children)
        found = transit.log_odds(self.left_child, self.right_child, self.expected_s, self.gap_s)
        return np.where(self.timed, found, 0.0)

    def log_odds(self, terms: PairTerms, transit: Floats) -> Floats:
        """(p,) Log-odds under the terms, given the transit log-odds (p,)."""
        return log_odds(terms, self.distance, transit, self.left_weight, self.right_weight)

    def fit(self, transit: Floats) -> PairTerms | None:
        """The terms fitted to these pairs and their transit log-odds (p,); see `fit_pairs`."""
        return fit_pairs(self.distance, transit, self.left_weight, self.right_weight, self.same)


class PairCollector:
    """Collects the pairs that the windows of a level's units compare."""

    def __init__(self, children: Sequence[str], truth: Mapping[int, str]) -> None:
        """children: of all units of the level. truth: the person of each tracklet, by its id."""
        self._index = {code: index for index, code in enumerate(children)}
        self._truth = truth
        self._parts: list[ComparedPairs] = []

    def observer(self, unit: str, district: int) -> Callable[[Sequence[Node], Shortlist], None]:
        """The `observe` argument of `resolve_unit` for one unit of the district with this number."""
        children = sorted(code for code in self._index if parent_of(code) == unit)
        index = np.array([self._index[code] for code in children], dtype=np.int64)

        def observe(candidates: Sequence[Node], shortlist: Shortlist) -> None:
            people = [majority_person(node.identity.tracklets, self._truth) for node in candidates]
            person = np.array(people, dtype=object)
            weight = np.array([node.prototypes.weight for node in candidates])
            left, right, scores = shortlist.left, shortlist.right, shortlist.scores
            labeled = (person[left] != "") & (person[right] != "")
            pairs = ComparedPairs(
                distance=scores.distance,
                timed=scores.timed,
                gap_s=scores.gap_us / 1e6,
                expected_s=scores.expected_s,
                left_child=index[scores.left_child],
                right_child=index[scores.right_child],
                left_weight=weight[left],
                right_weight=weight[right],
                same=person[left] == person[right],
                district=np.full(len(left), district),
            )
            if labeled.any():
                self._parts.append(pairs.take(labeled))

        return observe

    def pairs(self) -> ComparedPairs | None:
        """All pairs with truth on both sides; None if there are none."""
        if not self._parts:
            return None
        names = vars(self._parts[0])
        return ComparedPairs(**{name: np.concatenate([getattr(part, name) for part in self._parts]) for name in names})


_TRUTHS = (
    "SELECT m.identity_id, min(t.truth) AS truth FROM identity i JOIN identity_member m ON m.identity_id = i.id "
    "JOIN crop_truth t ON t.crop_id = m.crop_id WHERE i.level = 'camera' GROUP BY 1"
)


def tracklet_truths(connection: Connection) -> dict[int, str]:
    """Tracklet id -> person, for tracklets whose crops carry a truth. A simulated tracklet shows one person only."""
    rows = copy_out(connection, _TRUTHS, {}, {"id": "int8", "truth": "text"})
    return dict(zip(np.asarray(rows["id"]).tolist(), rows["truth"], strict=True))


def majority_person(tracklets: Iterable[int], truth: Mapping[int, str]) -> str:
    """The person of most of the tracklets, of equals the first by name; "" where no tracklet has a truth."""
    people = sorted(truth[tracklet] for tracklet in tracklets if tracklet in truth)
    return max(people, key=people.count, default="")


_JOINED = (
    "SELECT (SELECT min(i.id) FROM identity i WHERE i.key = d.left_key) AS left_id, "
    "(SELECT min(i.id) FROM identity i WHERE i.key = d.right_key) AS right_id FROM match_decision d "
    "JOIN run r ON r.id = d.run_id WHERE r.superseded_at IS NULL AND r.level = CAST(:level AS unit_level) "
    "AND (r.unit = :district OR starts_with(r.unit, :district || '/')) AND d.verdict = 'join'"
)
_TRACKLETS_OF = (
    "SELECT i.id, below.id AS tracklet FROM identity i CROSS JOIN unnest(i.tracklets) AS below(id) "
    "WHERE i.id = ANY(:ids)"
)


def wrong_joins(store: Store, district: str, level: Level, truth: Mapping[int, str]) -> tuple[Bools, Ints]:
    """For the j current joins of a level: (j,) whether it joins two people, and (j,) the number of the left person.

    truth: the person of each tracklet, by its id. A side shows the person of most of its tracklets; joins with a side
    without truth are left out.
    """
    with store.begin() as connection:
        at = {"level": level.value, "district": district}
        rows = copy_out(connection, _JOINED, at, {"left": "int8?", "right": "int8?"})
        joins = [(a, b) for a, b in zip(rows["left"], rows["right"], strict=True) if a is not None and b is not None]
        ids = sorted({identity for join in joins for identity in join})
        below = copy_out(connection, _TRACKLETS_OF, {"ids": ids}, {"id": "int8", "tracklet": "int8"}) if ids else {}
    tracklets: dict[int, list[int]] = {}
    for identity, tracklet in zip(below.get("id", ()), below.get("tracklet", ()), strict=True):
        tracklets.setdefault(int(identity), []).append(int(tracklet))
    person = {identity: majority_person(held, truth) for identity, held in tracklets.items()}
    labeled = [(person[a], person[b]) for a, b in joins if person.get(a) and person.get(b)]
    numbers = {name: number for number, name in enumerate(sorted(set(person.values())))}
    return (
        np.array([a != b for a, b in labeled], dtype=bool),
        np.array([numbers[a] for a, _ in labeled], dtype=np.int64),
    )
