"""`associate`: joins nodes to groups and explains that by decisions. Serves buildings, streets and districts alike."""

from collections.abc import Iterable, Sequence, Set
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
    answered: bool  # joined or kept apart because a person said so


@dataclass(frozen=True)
class Answers:
    """What people said about pairs of nodes (left < right), each ascending.

    It outweighs every score. What is impossible outweighs it, and where both are said of two groups they stay apart.
    """

    must: Sequence[tuple[int, int]] = ()  # one person
    cannot: Sequence[tuple[int, int]] = ()  # two


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
    answers: Answers | None = None,
) -> Association:
    """Groups of nodes that are one person, and the decisions that explain them.

    Without a calibration nothing is joined but what answers join: the nearest candidate of each fresh node goes to
    review.
    """
    answers = answers or Answers()
    left, right, gaps = shortlist(nodes, geometry, settings.neighbors)
    scorer = Scorer(nodes, geometry, core, calibration, transit)
    scores = scorer.score(left, right, gaps)
    pairs = _ScoredPairs(scorer)
    log_odds = pairs.add(left, right, scores)
    asked = np.array([pair for pair in answers.must if pair not in pairs.rows], dtype=np.int64).reshape(-1, 2)
    linked = np.append(left, asked[:, 0]), np.append(right, asked[:, 1])
    linked_odds = np.append(log_odds, pairs.score(*asked.T)) if len(asked) else log_odds
    said = _both_ways(answers.cannot)

    def cluster(join_log_odds: float, review_log_odds: float, cannot_link: Set[tuple[int, int]]) -> Clusters:
        return average_link(
            len(nodes),
            *linked,
            linked_odds if calibration is not None else np.zeros(len(linked_odds)),
            threshold=join_log_odds,
            review=review_log_odds,
            small=settings.small_cluster,
            score=pairs.score,
            impossible=lambda a, b: _any_between(cannot_link, a, b) or pairs.impossible(a, b),
            joined=answers.must,
        )

    if calibration is None:
        clusters = cluster(np.inf, np.inf, said)
        joins = [(*pairs.rows[pair], *pair, Verdict.JOIN) for pair in clusters.joins]
        rows = sorted(set(_nearest_candidates(nodes, left, right, scores).values()))
        nearest = [(scores, row, int(left[row]), int(right[row]), Verdict.REVIEW) for row in rows]
        told = {*clusters.joins, *answers.cannot}
        reviews = [one for one in nearest if (one[2], one[3]) not in told]
        return Association(
            clusters.groups,
            [
                _decision(found, row, a, b, verdict, None, None, nodes, verdict is Verdict.JOIN)
                for found, row, a, b, verdict in sorted([*joins, *reviews], key=lambda one: one[2:4])
            ],
            Shortlist(left, right, scores),
        )
    clusters = cluster(calibration.join_log_odds, calibration.review_log_odds, said)
    undone = joins_to_undo(
        clusters.groups,
        nodes.fresh,
        left,
        right,
        log_odds,
        threshold=calibration.join_log_odds,
        score=lambda node, others: pairs.mean([node], others),
        impossible=lambda node, others: _any_between(said, [node], others) or pairs.impossible([node], others),
        conflict=lambda a, b: time_gaps(nodes, geometry, a, b).impossible,
    )
    bound = {node for pair in answers.must for node in pair}
    undone = [pair for pair in undone if pair[0] not in bound]
    if undone:
        clusters = cluster(calibration.join_log_odds, calibration.review_log_odds, said | _both_ways(undone))
    group_of = np.empty(len(nodes), dtype=np.int64)
    for number, members in enumerate(clusters.groups):
        group_of[members] = number
    verdicts = dict.fromkeys(clusters.joins, Verdict.JOIN)
    verdicts |= dict.fromkeys(clusters.reviews, Verdict.REVIEW)
    runners_up = _runners_up(nodes, left, right, scores, group_of)
    for row in runners_up.values():
        verdicts.setdefault((int(left[row]), int(right[row])), Verdict.APART)
    for pair in answers.cannot:
        if pair in pairs.rows:
            verdicts.setdefault(pair, Verdict.APART)
    said_of = {Verdict.JOIN: {*answers.must}, Verdict.APART: {*answers.cannot}, Verdict.REVIEW: set()}
    decisions = []
    for (a, b), verdict in sorted(verdicts.items()):
        found, row = pairs.rows[a, b]
        runner_up_row = runners_up.get(a if nodes.fresh[a] else b) if verdict is Verdict.JOIN else None
        runner_up = None
        if runner_up_row is not None:
            ends = {int(left[runner_up_row]), int(right[runner_up_row])} - {a, b}
            runner_up = (min(ends), float(scores.distance[runner_up_row])) if ends else None
        answered = (a, b) in said_of[verdict]
        decisions.append(_decision(found, row, a, b, verdict, calibration, runner_up, nodes, answered))
    return Association(clusters.groups, decisions, Shortlist(left, right, scores))


def _both_ways(pairs: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    return {way for a, b in pairs for way in ((a, b), (b, a))}


def _any_between(pairs: Set[tuple[int, int]], some: Sequence[int], others: Sequence[int]) -> bool:
    return bool(pairs) and any((i, j) in pairs for i in some for j in others)


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
    order = np.lexsort((right, left, scores.distance))
    fresh = nodes.fresh.tolist()
    for row, *ends in zip(order.tolist(), left[order].tolist(), right[order].tolist(), strict=True):
        for node in ends:
            if fresh[node]:
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
    answered: bool,
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
        answered=answered,
    )
