"""The whole district at once: each to the nearest one, and agglomerative clustering of appearance."""

import heapq

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering

from pipeline.accuracy.baselines.passages import Cut, Passages, nearest_others
from schemas.arrays import Floats, Ints

#: Up to so many passages `average_link` compares all pairs; beyond, each with its nearest `_NEIGHBORS`.
DENSE = 4_000
_NEIGHBORS = 24
#: What an impossible pair counts like: no mean over possible ones outweighs it.
_NEVER = 1e9


def nearest_neighbor(passages: Passages) -> Cut:
    """Links everyone to the nearest one that is possible, if nearer than the threshold; linked ones are a group.

    Gates forbid links; two links may still bring an impossible pair together.
    """
    n = len(passages)
    nearest, distance = _nearest_possible(passages)

    def cut(most: float) -> Ints:
        linked = np.flatnonzero(distance < most)
        graph = coo_matrix((np.ones(len(linked)), (linked, nearest[linked])), shape=(n, n))
        groups: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
        return groups

    return cut


def _nearest_possible(passages: Passages) -> tuple[Ints, Floats]:
    """(n,) the nearest possible other and its distance in float64; -1 and inf where there is none."""
    n, directions = len(passages), passages.directions()
    nearest, distance = np.full(n, -1, dtype=np.int64), np.full(n, np.inf)
    for rows, columns, _ in nearest_others(directions, 16):
        possible = ~passages.impossible(rows[:, None], columns)
        found = possible.any(axis=1)
        nearest[rows[found]] = columns[np.arange(len(rows)), possible.argmax(axis=1)][found]
        # Whoever has only impossible ones among the nearest 16 is compared with everyone.
        for row in rows[~found].tolist():
            others = np.flatnonzero(~passages.impossible(np.array(row), np.arange(n)))
            others = others[others != row]
            if len(others):
                nearest[row] = others[(directions[others] @ directions[row]).argmax()]
    some = np.flatnonzero(nearest >= 0)
    for part in np.array_split(some, 1 + len(some) // 50_000):
        pairs = directions[part].astype(np.float64) * directions[nearest[part]]
        distance[part] = 1 - pairs.sum(axis=1)
    return nearest, distance


# ---- agglomerative


def average_link(passages: Passages, dense: int = DENSE) -> Cut:
    """Average-link agglomerative clustering, cut where the mean distance of two clusters reaches the threshold.

    Up to `dense` passages over all pairs, and an impossible pair is never in one group. Beyond, over each one's
    nearest 24 possible ones: the mean is then over the pairs of the graph, pairs that are not in it say nothing, and
    two possible merges may bring an impossible pair together.
    """
    n = len(passages)
    if n < 2:
        return lambda most: np.arange(n)
    if n <= dense:
        tree = _tree(passages.distances(np.arange(n), _NEVER))
        return lambda most: _cut(n, tree, most)
    sparse = _graph_tree(n, *_neighbor_graph(passages))
    return lambda most: _cut(n, sparse, most)


def _neighbor_graph(passages: Passages) -> tuple[Ints, Ints, Floats]:
    """Each one's nearest possible `_NEIGHBORS`, every pair once: left < right (p,), distance (p,)."""
    n = len(passages)
    pairs, values = [], []
    for rows, columns, far in nearest_others(passages.directions(), 4 * _NEIGHBORS):
        possible = ~passages.impossible(rows[:, None], columns)
        kept = possible & (np.cumsum(possible, axis=1) <= _NEIGHBORS)
        left, right = np.repeat(rows, kept.sum(axis=1)), columns[kept]
        pairs.append(np.minimum(left, right) * n + np.maximum(left, right))
        values.append(far[kept].astype(np.float64))
    pair, first = np.unique(np.concatenate(pairs), return_index=True)
    return pair // n, pair % n, np.concatenate(values)[first]


def _tree(distance: Floats) -> tuple[Ints, Floats]:
    """Merges (m, 2) in order and their distances (m,): merge i makes node n + i."""
    fitted = AgglomerativeClustering(
        n_clusters=None, distance_threshold=0.0, metric="precomputed", linkage="average", compute_full_tree=True
    ).fit(distance)
    return fitted.children_, fitted.distances_


def _graph_tree(n: int, left: Ints, right: Ints, distance: Floats) -> tuple[Ints, Floats]:
    """As `_tree`, from the pairs of a graph alone; one node for each of its parts is left.

    What scikit-learn makes with a connectivity, which takes a whole matrix or the features of both ends of every pair:
    two distances to a neighbor that both sides know count by the sides' sizes, one that only one side knows stays.
    """
    links: list[dict[int, float]] = [{} for _ in range(n)]
    for a, b, far in zip(left.tolist(), right.tolist(), distance.tolist(), strict=True):
        links[a][b] = links[b][a] = far
    heap = list(zip(distance.tolist(), left.tolist(), right.tolist(), strict=True))
    heapq.heapify(heap)
    size, node = [1] * n, list(range(n))
    children, heights = [], []
    while heap:
        far, a, b = heapq.heappop(heap)
        if links[a].get(b) != far:  # one of them is gone, or they are further apart than they were
            continue
        if len(links[a]) < len(links[b]):
            a, b = b, a
        children.append((node[a], node[b]))
        heights.append(far)
        node[a] = n + len(children) - 1
        del links[a][b], links[b][a]
        for other, value in links[b].items():  # b goes into a; the fewer links move
            del links[other][b]
            known = links[a].get(other)
            if known is not None:
                value = (size[a] * known + size[b] * value) / (size[a] + size[b])
            links[a][other] = links[other][a] = value
            heapq.heappush(heap, (value, a, other))
        links[b] = {}
        size[a] += size[b]
    return np.array(children, dtype=np.int64).reshape(-1, 2), np.array(heights)


def _cut(n: int, tree: tuple[Ints, Floats], most: float) -> Ints:
    """Groups after as many merges as lie below the threshold, as scikit-learn cuts."""
    children, distance = tree
    made = children[: int((distance < most).sum())]
    parents = n + np.arange(len(made))
    nodes = n + len(made)
    graph = coo_matrix((np.ones(2 * len(made)), (np.repeat(parents, 2), made.ravel())), shape=(nodes, nodes))
    roots = connected_components(graph, directed=False)[1][:n]
    return np.unique(roots, return_inverse=True)[1]
