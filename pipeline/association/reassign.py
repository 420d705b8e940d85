"""Optimal reassignment among those who exist at once.

Agglomeration joins the likeliest pair first. Of two fresh nodes that cannot be one person, the first may so take the
only group that the second could have joined, though it had another that was nearly as good. Here all who compete for
the same groups are assigned to them at once, so that the sum of log-odds over the operating point is largest
(Kuhn 1955).
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.association.nodes import Bools, Ints
from pipeline.matching import best_matching

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
    wanted: dict[int, set[int]] = {}  # of each group: the fresh nodes that it could be the one of
    for a, b in ((left, right), (right, left)):
        rows = np.flatnonzero((log_odds >= threshold) & fresh[a])
        for node, number in zip(a[rows].tolist(), group[b[rows]].tolist(), strict=True):
            wanted.setdefault(number, set()).add(node)
    result: list[tuple[int, int]] = []
    for rivals in _rivals(wanted, at_once):
        result += _moved(rivals, wanted, groups, group, threshold, score, impossible)
    return sorted(result)


def _rivals(wanted: dict[int, set[int]], at_once: Callable[[Ints, Ints], Bools]) -> list[list[int]]:
    """Sets of nodes of which each wants a group together with another that it cannot be one person with."""
    pairs = sorted({pair for nodes in wanted.values() for pair in combinations(sorted(nodes), 2)})
    if not pairs:
        return []
    columns = np.array(pairs, dtype=np.int64)
    a, b = columns[at_once(columns[:, 0], columns[:, 1])].T
    nodes, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    edges = csr_matrix((np.ones(len(a)), place.reshape(2, -1)), shape=(len(nodes), len(nodes)))
    number, component = connected_components(edges, directed=False)
    return [nodes[component == one].tolist() for one in range(number)]


def _moved(
    rivals: Sequence[int],
    wanted: dict[int, set[int]],
    groups: Sequence[Sequence[int]],
    group: Ints,
    threshold: float,
    score: Callable[[int, Sequence[int]], float],
    impossible: Callable[[int, Sequence[int]], bool],
) -> list[tuple[int, int]]:
    apart = set(rivals)
    others = {number: [i for i in groups[number] if i not in apart] for number in wanted}
    gains: dict[tuple[int, int], float] = {}
    for number in sorted(wanted):
        for node in sorted(wanted[number] & apart):
            if others[number] and not impossible(node, others[number]):
                gain = score(node, others[number]) - threshold
                if gain > 0:
                    gains[node, number] = gain
    if not gains:
        return []
    edges = np.array(list(gains), dtype=np.int64)
    values = np.array(list(gains.values()))
    chosen = best_matching(edges[:, 0], edges[:, 1], values)
    now = sum(gains.get((node, int(group[node])), 0.0) for node in rivals)
    if values[chosen].sum() <= now + _BETTER:
        return []
    new = dict(edges[chosen].tolist())
    return [(node, i) for node in rivals if new.get(node) != group[node] for i in others.get(int(group[node]), ())]
