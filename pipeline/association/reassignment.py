"""Optimal reassignment among nodes that cannot be one person.

Agglomeration merges the strongest pair first. When two fresh nodes cannot be one person, the first may take the only
group that the second could join, although another group suits the first nearly as well. Here all nodes that compete for
the same groups are assigned at once, such that the sum of log-odds above the operating point is largest (Kuhn 1955).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from pipeline.association.matching import best_matching
from schemas.arrays import Bools, Floats, Ints

#: An assignment must be better by this much, log-odds; smaller differences are floating-point noise.
_MIN_IMPROVEMENT = 1e-6


def joins_to_undo(
    groups: Sequence[Sequence[int]],
    fresh: Bools,
    left: Ints,
    right: Ints,
    log_odds: Floats,
    *,
    threshold: float,
    score: Callable[[int, Sequence[int]], float],
    impossible: Callable[[int, Sequence[int]], bool],
    conflict: Callable[[Ints, Ints], Bools],
) -> list[tuple[int, int]]:
    """Pairs (node, member of its group) that the optimal assignment does not join.

    left, right, log_odds: (p,) scored pairs. score: mean log-odds of a node with others. impossible: whether a node
    cannot be one person with any of them. conflict: (p,) which node pairs cannot be one person.
    """
    group_of = np.empty(len(fresh), dtype=np.int64)
    for number, members in enumerate(groups):
        group_of[list(members)] = number
    wanted: dict[int, set[int]] = {}  # fresh node -> groups with a member that reaches the threshold with it
    for a, b in ((left, right), (right, left)):
        rows = np.flatnonzero((log_odds >= threshold) & fresh[a])
        for node, number in zip(a[rows].tolist(), group_of[b[rows]].tolist(), strict=True):
            wanted.setdefault(node, set()).add(number)
    undone: list[tuple[int, int]] = []
    for rivals in _rivals(wanted, conflict):
        numbers = {number for node in rivals for number in (*wanted[node], int(group_of[node]))}
        others = {number: [i for i in groups[number] if i not in rivals] for number in numbers}
        gains = {
            (node, number): gain
            for node in sorted(rivals)
            for number in sorted(wanted[node])
            if others[number] and not impossible(node, others[number])
            if (gain := score(node, others[number]) - threshold) > 0
        }
        best = _best_assignment(gains)
        current = {node: int(group_of[node]) for node in rivals}
        if _total_gain(best, gains) > _total_gain(current, gains) + _MIN_IMPROVEMENT:
            undone += [(node, i) for node, own in current.items() if best.get(node) != own for i in others[own]]
    return sorted(undone)


def _rivals(wanted: Mapping[int, set[int]], conflict: Callable[[Ints, Ints], Bools]) -> list[set[int]]:
    """Connected sets of nodes, in which an edge is a conflict between two nodes that want a common group."""
    nodes_by_group: dict[int, list[int]] = {}
    for node in sorted(wanted):
        for number in wanted[node]:
            nodes_by_group.setdefault(number, []).append(node)
    pairs = sorted({pair for nodes in nodes_by_group.values() for pair in combinations(nodes, 2)})
    if not pairs:
        return []
    columns = np.array(pairs, dtype=np.int64)
    rivals: dict[int, set[int]] = {}  # node -> the set that it is in
    for a, b in columns[conflict(columns[:, 0], columns[:, 1])].tolist():
        together = rivals.get(a, {a}) | rivals.get(b, {b})
        rivals |= dict.fromkeys(together, together)
    return list({id(one): one for one in rivals.values()}.values())


def _best_assignment(gains: Mapping[tuple[int, int], float]) -> dict[int, int]:
    """Node -> group of the assignment with the largest total gain; no group is given twice."""
    edges = np.array(list(gains), dtype=np.int64).reshape(-1, 2)
    chosen = best_matching(edges[:, 0], edges[:, 1], np.array(list(gains.values())))
    return dict(edges[chosen].tolist())


def _total_gain(assignment: Mapping[int, int], gains: Mapping[tuple[int, int], float]) -> float:
    return sum(gains.get(edge, 0.0) for edge in assignment.items())
