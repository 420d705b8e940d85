"""associate: from nodes to groups and the decisions that explain them. Serves building, street and district alike."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.association.candidates import shortlist
from pipeline.association.clustering import Clusters, average_link
from pipeline.association.geometry import Geometry, closest
from pipeline.association.nodes import Nodes
from pipeline.association.pair_scores import Scorer, Scores
from pipeline.association.reassignment import displaced
from pipeline.association.transit import UnitTransit
from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats, Ints
from schemas.association import Verdict
from schemas.calibration import LevelCalibration
from schemas.cards import probability
from schemas.settings import AssociationSettings


@dataclass(frozen=True)
class Decision:
    left: int  # node index; left < right, so left's key is the lower
    right: int
    verdict: Verdict
    distance: float
    appearance_log_odds: float | None
    transit_log_odds: float
    probability: float | None
    operating_point: float | None
    gap_s: float | None
    way_s: float | None  # how long the way between the two usually takes; None where nothing is known of it
    left_child: int
    right_child: int
    runner_up: int | None  # nearest candidate of the fresher side outside the group
    runner_up_distance: float | None


@dataclass(frozen=True)
class Shortlist:
    """The pairs that were compared because they are near, and their scores."""

    left: Ints  # (p,) node indices; left < right
    right: Ints
    scores: Scores


@dataclass(frozen=True)
class Association:
    groups: list[list[int]]
    decisions: list[Decision]
    shortlist: Shortlist


def associate(
    nodes: Nodes,
    world: Geometry,
    core: ReIDCore,
    calibration: LevelCalibration | None,
    transit: UnitTransit,
    settings: AssociationSettings,
) -> Association:
    """Groups of nodes that are one person, and why.

    Without a calibration nothing is joined: each fresh node's nearest candidate goes to review.
    """
    left, right, near = shortlist(nodes, world, settings.neighbors)
    scorer = Scorer(nodes, world, core, calibration, transit)
    scores = scorer.score(left, right, near)
    if calibration is None:
        nearest = _nearest_of_fresh(nodes, left, right, scores)
        rows = sorted(set(nearest.values()))
        return Association(
            [[i] for i in range(len(nodes))],
            [
                _decision(scores, row, int(left[row]), int(right[row]), Verdict.REVIEW, None, None, nodes)
                for row in rows
            ],
            Shortlist(left, right, scores),
        )
    pairs = _Pairs(scorer)
    log_odds = pairs.keep(left, right, scores)

    def cluster(forbidden: Container[tuple[int, int]] = ()) -> Clusters:
        return average_link(
            len(nodes),
            left,
            right,
            log_odds,
            threshold=calibration.join_log_odds,
            review=calibration.review_log_odds,
            small=settings.small_cluster,
            score=pairs.score,
            impossible=lambda a, b: any((i, j) in forbidden for i in a for j in b) or pairs.impossible(a, b),
        )

    clusters = cluster()
    moved = displaced(
        clusters.groups,
        nodes.fresh,
        left,
        right,
        log_odds,
        threshold=calibration.join_log_odds,
        score=lambda node, others: pairs.mean([node], others),
        impossible=lambda node, others: pairs.impossible([node], others),
        at_once=lambda a, b: closest(nodes, world, a, b).impossible,
    )
    if moved:
        clusters = cluster({*moved, *((j, i) for i, j in moved)})
    group = np.empty(len(nodes), dtype=np.int64)
    for number, members in enumerate(clusters.groups):
        group[members] = number
    verdicts = dict.fromkeys(clusters.joins, Verdict.JOIN)
    verdicts |= dict.fromkeys(clusters.near, Verdict.REVIEW)
    runner_up = _runners_up(nodes, left, right, scores, group)
    for row in runner_up.values():
        verdicts.setdefault((int(left[row]), int(right[row])), Verdict.APART)
    decisions = []
    for (a, b), verdict in sorted(verdicts.items()):
        found, row = pairs.where[a, b]
        other = runner_up.get(a if nodes.fresh[a] else b) if verdict is Verdict.JOIN else None
        rival = None
        if other is not None:
            ends = {int(left[other]), int(right[other])} - {a, b}
            rival = (min(ends), float(scores.distance[other])) if ends else None
        decisions.append(_decision(found, row, a, b, verdict, calibration, rival, nodes))
    return Association(clusters.groups, decisions, Shortlist(left, right, scores))


class _Pairs:
    """The pairs that were scored, and what is asked of them."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.where: dict[tuple[int, int], tuple[Scores, int]] = {}  # of each: in which scores, and in which row

    def keep(self, left: Ints, right: Ints, found: Scores) -> Floats:
        """Remembers them; (p,) their log-odds."""
        ends = zip(left.tolist(), right.tolist(), strict=True)
        self.where.update((pair, (found, row)) for row, pair in enumerate(ends))
        return found.log_odds

    def score(self, left: Ints, right: Ints) -> Floats:
        """(p,) Log-odds of further pairs."""
        return self.keep(left, right, self.scorer.score(left, right))

    def mean(self, some: Sequence[int], others: Sequence[int]) -> float:
        """Mean log-odds over all pairs between the two."""
        known, rest = self._parted(some, others)
        total = sum(float(found.log_odds[row]) for found, row in known)
        return (total + float(self.score(*rest).sum())) / (len(some) * len(others))

    def impossible(self, some: Sequence[int], others: Sequence[int]) -> bool:
        """Whether any pair between the two cannot be one person."""
        known, rest = self._parted(some, others)
        if any(found.impossible[row] for found, row in known):
            return True
        return bool(len(rest[0])) and bool(closest(self.scorer.nodes, self.scorer.world, *rest).impossible.any())

    def _parted(self, some: Sequence[int], others: Sequence[int]) -> tuple[list[tuple[Scores, int]], tuple[Ints, Ints]]:
        """The pairs between the two that were scored, and the others."""
        every = [(min(i, j), max(i, j)) for i in some for j in others]
        rest = np.array([pair for pair in every if pair not in self.where], dtype=np.int64).reshape(-1, 2)
        return [self.where[pair] for pair in every if pair in self.where], (rest[:, 0], rest[:, 1])


def _nearest_of_fresh(nodes: Nodes, left: Ints, right: Ints, scores: Scores) -> dict[int, int]:
    """The pair with the smallest distance of each fresh node: node -> row."""
    best: dict[int, int] = {}
    for row in np.lexsort((right, left, scores.distance)).tolist():
        for node in (int(left[row]), int(right[row])):
            if nodes.fresh[node]:
                best.setdefault(node, row)
    return best


def _runners_up(nodes: Nodes, left: Ints, right: Ints, scores: Scores, group: np.ndarray) -> dict[int, int]:
    """The same among the pairs whose ends lie in different groups."""
    outside = np.flatnonzero(group[left] != group[right])
    found = _nearest_of_fresh(nodes, left[outside], right[outside], scores.take(outside))
    return {node: int(outside[row]) for node, row in found.items()}


def _decision(
    scores: Scores,
    row: int,
    left: int,
    right: int,
    verdict: Verdict,
    calibration: LevelCalibration | None,
    rival: tuple[int, float] | None,
    nodes: Nodes,
) -> Decision:
    timed = bool(nodes.timed[left] and nodes.timed[right])
    return Decision(
        left,
        right,
        verdict,
        float(scores.distance[row]),
        None if calibration is None else float(scores.appearance[row]),
        float(scores.transit[row]),
        None if calibration is None else probability(float(scores.log_odds[row])),
        None if calibration is None else probability(calibration.join_log_odds),
        float(scores.gap_us[row]) / 1e6 if timed else None,
        None if np.isnan(scores.way_s[row]) else float(scores.way_s[row]),
        int(scores.left_child[row]),
        int(scores.right_child[row]),
        None if rival is None else rival[0],
        None if rival is None else rival[1],
    )
