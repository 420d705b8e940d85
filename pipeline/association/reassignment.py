"""Optimal reassignment among those who exist at once.

Agglomeration joins the likeliest pair first. Of two fresh nodes that cannot be one person, the first may so take the
only group that the second could have joined, though it had another that was nearly as good. Here all who compete for
the same groups are assigned to them at once, so that the sum of log-odds over the operating point is largest
(Kuhn 1955).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.association.matching import best_matching
from schemas.arrays import Bools, Ints

#: What an assignment has to be better by, log-odds; below it, floating-point sums decide.
_BETTER = 1e-6


def displaced(
    groups: Sequence[Sequence[int]],
    fresh: Bools,
    left: Ints,
    right: Ints,
    log_odds: np.ndarray,
    *,
    threshold: float,
    score: Callable[[int, Sequence[int]], float],
    impossible: Callable[[int, Sequence[int]], bool],
    at_once: Callable[[Ints, Ints], Bools],
) -> list[tuple[int, int]]:
    """Pairs (node, member of its group) that an optimal assignment would not join.

    `left`, `right`, `log_odds` (p,): the scored pairs; `score` gives the mean log-odds of a node with others, and
    `impossible` whether it cannot be one person with any of them; `at_once` which of pairs of nodes cannot.
    """
    group = np.empty(len(fresh), dtype=np.int64)
    for number, members in enumerate(groups):
        group[list(members)] = number
    wants: dict[int, set[int]] = {}  # of each fresh node: the groups that it could be the one of
    for a, b in ((left, right), (right, left)):
        rows = np.flatnonzero((log_odds >= threshold) & fresh[a])
        for node, number in zip(a[rows].tolist(), group[b[rows]].tolist(), strict=True):
            wants.setdefault(node, set()).add(number)
    result: list[tuple[int, int]] = []
    for rivals in _rivals(wants, at_once):
        others = {n: [i for i in groups[n] if i not in rivals] for node in rivals for n in (*wants[node], group[node])}
        gains = {
            (node, number): gain
            for node in sorted(rivals)
            for number in sorted(wants[node])
            if others[number] and not impossible(node, others[number])
            if (gain := score(node, others[number]) - threshold) > 0
        }
        best = _best(gains)
        now = {node: int(group[node]) for node in rivals}
        if _worth(best, gains) > _worth(now, gains) + _BETTER:
            result += [(node, i) for node, own in now.items() if best.get(node) != own for i in others[own]]
    return sorted(result)


def _rivals(wants: Mapping[int, set[int]], at_once: Callable[[Ints, Ints], Bools]) -> list[set[int]]:
    """Sets of nodes of which each wants a group together with another that it cannot be one person with."""
    wanted: dict[int, list[int]] = {}
    for node in sorted(wants):
        for number in wants[node]:
            wanted.setdefault(number, []).append(node)
    pairs = sorted({pair for nodes in wanted.values() for pair in combinations(nodes, 2)})
    if not pairs:
        return []
    columns = np.array(pairs, dtype=np.int64)
    a, b = columns[at_once(columns[:, 0], columns[:, 1])].T
    nodes, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    edges = csr_matrix((np.ones(len(a)), place.reshape(2, -1)), shape=(len(nodes), len(nodes)))
    number, component = connected_components(edges, directed=False)
    return [set(nodes[component == one].tolist()) for one in range(number)]


def _best(gains: Mapping[tuple[int, int], float]) -> dict[int, int]:
    """The group of each node in the assignment that gains most; no group is given twice."""
    edges = np.array(list(gains), dtype=np.int64).reshape(-1, 2)
    chosen = best_matching(edges[:, 0], edges[:, 1], np.array(list(gains.values())))
    return dict(edges[chosen].tolist())


def _worth(held: Mapping[int, int], gains: Mapping[tuple[int, int], float]) -> float:
    return sum(gains.get(edge, 0.0) for edge in held.items())
