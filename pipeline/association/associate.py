"""`associate`: joins nodes to groups and explains that by decisions. Serves buildings, streets and districts alike."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.association.candidates import shortlist
from pipeline.association.clustering import Clusters, average_link
from pipeline.association.geometry import Geometry, time_gaps
from pipeline.association.log_odds import probability
from pipeline.association.nodes import Nodes
from pipeline.association.pair_scores import Scorer, Scores
from pipeline.association.reassignment import joins_to_undo
from pipeline.association.transit import UnitTransit
from reid_core.serving.core import ReIDCore
from schemas.arrays import Floats, Ints
from schemas.association import Verdict
from schemas.calibration import LevelCalibration
from schemas.settings import AssociationSettings


@dataclass(frozen=True)
class Decision:
    """Why two nodes were joined, kept apart or sent to review. Values are None where there is no calibration."""

    left: int  # node index; left < right, so the left key is the lower one
    right: int
    verdict: Verdict
    distance: float
    appearance_log_odds: float | None
    transit_log_odds: float
    probability: float | None
    operating_point: float | None  # as a probability
    gap_s: float | None  # between the two nearest tracklets; None without times
    expected_s: float | None  # expected walking time between their cameras; None where unknown
    left_child: int  # child of the unit at which the left one of them was seen
    right_child: int
    runner_up: int | None  # nearest candidate, outside the group, of the pair's fresh node; for joins only
    runner_up_distance: float | None


@dataclass(frozen=True)
class Shortlist:
    """The candidate pairs and their scores."""

    left: Ints  # (p,) node indices; left < right
    right: Ints
    scores: Scores


@dataclass(frozen=True)
class Association:
    groups: list[list[int]]  # every node once
    decisions: list[Decision]  # by (left, right)
    shortlist: Shortlist


def associate(
    nodes: Nodes,
    geometry: Geometry,
    core: ReIDCore,
    calibration: LevelCalibration | None,
    transit: UnitTransit,
    settings: AssociationSettings,
) -> Association:
    """Groups of nodes that are one person, and the decisions that explain them.

    Without a calibration nothing is joined: the nearest candidate of each fresh node goes to review.
    """
    left, right, gaps = shortlist(nodes, geometry, settings.neighbors)
    scorer = Scorer(nodes, geometry, core, calibration, transit)
    scores = scorer.score(left, right, gaps)
    if calibration is None:
        rows = sorted(set(_nearest_candidates(nodes, left, right, scores).values()))
        return Association(
            [[i] for i in range(len(nodes))],
            [
                _decision(scores, row, int(left[row]), int(right[row]), Verdict.REVIEW, None, None, nodes)
                for row in rows
            ],
            Shortlist(left, right, scores),
        )
    pairs = _ScoredPairs(scorer)
    log_odds = pairs.add(left, right, scores)

    def cluster(cannot_link: Container[tuple[int, int]] = ()) -> Clusters:
        return average_link(
            len(nodes),
            left,
            right,
            log_odds,
            threshold=calibration.join_log_odds,
            review=calibration.review_log_odds,
            small=settings.small_cluster,
            score=pairs.score,
            impossible=lambda a, b: any((i, j) in cannot_link for i in a for j in b) or pairs.impossible(a, b),
        )

    clusters = cluster()
    undone = joins_to_undo(
        clusters.groups,
        nodes.fresh,
        left,
        right,
        log_odds,
        threshold=calibration.join_log_odds,
        score=lambda node, others: pairs.mean([node], others),
        impossible=lambda node, others: pairs.impossible([node], others),
        conflict=lambda a, b: time_gaps(nodes, geometry, a, b).impossible,
    )
    if undone:
        clusters = cluster({*undone, *((j, i) for i, j in undone)})
    group_of = np.empty(len(nodes), dtype=np.int64)
    for number, members in enumerate(clusters.groups):
        group_of[members] = number
    verdicts = dict.fromkeys(clusters.joins, Verdict.JOIN)
    verdicts |= dict.fromkeys(clusters.reviews, Verdict.REVIEW)
    runners_up = _runners_up(nodes, left, right, scores, group_of)
    for row in runners_up.values():
        verdicts.setdefault((int(left[row]), int(right[row])), Verdict.APART)
    decisions = []
    for (a, b), verdict in sorted(verdicts.items()):
        found, row = pairs.rows[a, b]
        runner_up_row = runners_up.get(a if nodes.fresh[a] else b) if verdict is Verdict.JOIN else None
        runner_up = None
        if runner_up_row is not None:
            ends = {int(left[runner_up_row]), int(right[runner_up_row])} - {a, b}
            runner_up = (min(ends), float(scores.distance[runner_up_row])) if ends else None
        decisions.append(_decision(found, row, a, b, verdict, calibration, runner_up, nodes))
    return Association(clusters.groups, decisions, Shortlist(left, right, scores))


class _ScoredPairs:
    """All pairs scored so far; scores further ones on demand."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.rows: dict[tuple[int, int], tuple[Scores, int]] = {}  # pair -> the scores that hold it, and its row

    def add(self, left: Ints, right: Ints, scores: Scores) -> Floats:
        """Adds scored pairs; returns their log-odds (p,)."""
        ends = zip(left.tolist(), right.tolist(), strict=True)
        self.rows.update((pair, (scores, row)) for row, pair in enumerate(ends))
        return scores.log_odds

    def score(self, left: Ints, right: Ints) -> Floats:
        """(p,) Log-odds of further pairs."""
        return self.add(left, right, self.scorer.score(left, right))

    def mean(self, some: Sequence[int], others: Sequence[int]) -> float:
        """Mean log-odds over all pairs between the two."""
        scored, rest = self._split(some, others)
        total = sum(float(scores.log_odds[row]) for scores, row in scored)
        return (total + float(self.score(*rest).sum())) / (len(some) * len(others))

    def impossible(self, some: Sequence[int], others: Sequence[int]) -> bool:
        """Whether any pair between the two cannot be one person."""
        scored, rest = self._split(some, others)
        if any(scores.impossible[row] for scores, row in scored):
            return True
        return bool(len(rest[0])) and bool(time_gaps(self.scorer.nodes, self.scorer.geometry, *rest).impossible.any())

    def _split(self, some: Sequence[int], others: Sequence[int]) -> tuple[list[tuple[Scores, int]], tuple[Ints, Ints]]:
        """The pairs between the two: the scored ones, and (left, right) of the others."""
        every = [(min(i, j), max(i, j)) for i in some for j in others]
        rest = np.array([pair for pair in every if pair not in self.rows], dtype=np.int64).reshape(-1, 2)
        return [self.rows[pair] for pair in every if pair in self.rows], (rest[:, 0], rest[:, 1])


def _nearest_candidates(nodes: Nodes, left: Ints, right: Ints, scores: Scores) -> dict[int, int]:
    """Fresh node -> row of its pair with the smallest distance; ties break by key."""
    nearest: dict[int, int] = {}
    for row in np.lexsort((right, left, scores.distance)).tolist():
        for node in (int(left[row]), int(right[row])):
            if nodes.fresh[node]:
                nearest.setdefault(node, row)
    return nearest


def _runners_up(nodes: Nodes, left: Ints, right: Ints, scores: Scores, group_of: Ints) -> dict[int, int]:
    """Fresh node -> row of its pair with the smallest distance among the pairs between different groups."""
    outside = np.flatnonzero(group_of[left] != group_of[right])
    nearest = _nearest_candidates(nodes, left[outside], right[outside], scores.take(outside))
    return {node: int(outside[row]) for node, row in nearest.items()}


def _decision(
    scores: Scores,
    row: int,
    left: int,
    right: int,
    verdict: Verdict,
    calibration: LevelCalibration | None,
    runner_up: tuple[int, float] | None,
    nodes: Nodes,
) -> Decision:
    timed = bool(nodes.timed[left] and nodes.timed[right])
    return Decision(
        left=left,
        right=right,
        verdict=verdict,
        distance=float(scores.distance[row]),
        appearance_log_odds=None if calibration is None else float(scores.appearance[row]),
        transit_log_odds=float(scores.transit[row]),
        probability=None if calibration is None else probability(float(scores.log_odds[row])),
        operating_point=None if calibration is None else probability(calibration.join_log_odds),
        gap_s=float(scores.gap_us[row]) / 1e6 if timed else None,
        expected_s=None if np.isnan(scores.expected_s[row]) else float(scores.expected_s[row]),
        left_child=int(scores.left_child[row]),
        right_child=int(scores.right_child[row]),
        runner_up=None if runner_up is None else runner_up[0],
        runner_up_distance=None if runner_up is None else runner_up[1],
    )
