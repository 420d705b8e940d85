"""associate: from nodes to groups and the decisions that explain them. Serves building, street and district alike."""

from dataclasses import dataclass

import numpy as np

from pipeline.association.block import shortlist
from pipeline.association.cluster import average_link
from pipeline.association.geometry import Geometry, closest
from pipeline.association.nodes import Ints, Nodes
from pipeline.association.score import Scorer, Scores
from pipeline.association.transit import TransitModel
from reid_core.core import ReIDCore
from schemas.association import Verdict
from schemas.cards import LevelCalibration, probability
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
    left_child: int
    right_child: int
    runner_up: int | None  # nearest candidate of the fresher side outside the group
    runner_up_distance: float | None


@dataclass(frozen=True)
class Association:
    groups: list[list[int]]
    decisions: list[Decision]


def associate(
    nodes: Nodes,
    world: Geometry,
    core: ReIDCore,
    calibration: LevelCalibration | None,
    transit: TransitModel,
    settings: AssociationSettings,
) -> Association:
    """Groups of nodes that are one person, and why.

    Without a calibration nothing is joined: each fresh node's nearest candidate goes to review.
    """
    left, right = shortlist(nodes, world, settings.neighbours)
    scorer = Scorer(nodes, world, core, calibration, transit)
    scores = scorer.score(left, right)
    if calibration is None:
        nearest = _nearest_of_fresh(nodes, left, right, scores)
        rows = sorted(set(nearest.values()))
        return Association(
            [[i] for i in range(len(nodes))],
            [
                _decision(scores, row, int(left[row]), int(right[row]), Verdict.REVIEW, None, None, nodes)
                for row in rows
            ],
        )
    extra: dict[tuple[int, int], tuple[Scores, int]] = {}  # further pairs: where their row is

    def more(a: Ints, b: Ints) -> np.ndarray:
        found = scorer.score(a, b)
        for row, pair in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            extra[pair] = (found, row)
        return found.log_odds

    def impossible(a: list[int], b: list[int]) -> bool:
        i, j = np.repeat(np.array(a), len(b)), np.tile(np.array(b), len(a))
        return bool(closest(nodes, world, i, j).impossible.any())

    clusters = average_link(
        len(nodes),
        left,
        right,
        scores.log_odds,
        threshold=calibration.join_log_odds,
        review=calibration.review_log_odds,
        small=settings.small_cluster,
        score=more,
        impossible=impossible,
    )
    group = np.empty(len(nodes), dtype=np.int64)
    for number, members in enumerate(clusters.groups):
        group[members] = number
    verdicts = dict.fromkeys(clusters.joins, Verdict.JOIN)
    verdicts |= dict.fromkeys(clusters.near, Verdict.REVIEW)
    runner_up = _runners_up(nodes, left, right, scores, group)
    row_of = {pair: row for row, pair in enumerate(zip(left.tolist(), right.tolist(), strict=True))}
    for row in runner_up.values():
        verdicts.setdefault((int(left[row]), int(right[row])), Verdict.APART)
    decisions = []
    for (a, b), verdict in sorted(verdicts.items()):
        where, row = (scores, row_of[a, b]) if (a, b) in row_of else extra[a, b]
        other = runner_up.get(a if nodes.fresh[a] else b) if verdict is Verdict.JOIN else None
        rival = None
        if other is not None:
            ends = {int(left[other]), int(right[other])} - {a, b}
            rival = (min(ends), float(scores.distance[other])) if ends else None
        decisions.append(_decision(where, row, a, b, verdict, calibration, rival, nodes))
    return Association(clusters.groups, decisions)


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
        int(scores.left_child[row]),
        int(scores.right_child[row]),
        None if rival is None else rival[0],
        None if rival is None else rival[1],
    )
