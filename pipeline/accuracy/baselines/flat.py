"""Baselines over a whole district at once: nearest neighbor, and agglomerative clustering of appearance."""

import heapq

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering

from pipeline.accuracy.baselines.passages import Cut, Passages, nearest_others, untimed
from schemas.arrays import Floats, Ints

#: `average_link` compares all pairs of up to this many passages; of more, each with its nearest `_NEIGHBORS`.
DENSE = 4_000
_NEIGHBORS = 24
#: Distance of an impossible pair: no mean over possible ones outweighs it.
_IMPOSSIBLE = 1e9


# ---- nearest neighbor


def nearest_neighbor(passages: Passages) -> Cut:
    """Links each passage to its nearest possible one, if nearer than the threshold; groups are connected components.

    Gates forbid single links; two links may still put an impossible pair into one group.
    """
    n = len(passages)
    nearest, distance = _nearest_possible(passages)

    def cut(threshold: float) -> Ints:
        linked = np.flatnonzero(distance < threshold)
        graph = coo_matrix((np.ones(len(linked)), (linked, nearest[linked])), shape=(n, n))
        groups: Ints = connected_components(graph, directed=False)[1].astype(np.int64)
        return groups

    return cut


def nearest_neighbor_by_unit(features: Floats, unit: Ints) -> Cut:
    """`nearest_neighbor` without times within each unit: features (n, D), unit (n,)."""
    order = np.argsort(unit, kind="stable")
    units = [rows for rows in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1) if len(rows)]
    cuts = [nearest_neighbor(untimed(features[rows])) for rows in units]

    def cut(threshold: float) -> Ints:
        groups = np.arange(len(features))
        for rows, unit_cut in zip(units, cuts, strict=True):
            groups[rows] = rows[unit_cut(threshold)]  # group numbers are rows of the unit, so units do not share any
        return groups

    return cut


def _nearest_possible(passages: Passages) -> tuple[Ints, Floats]:
    """(n,) the nearest possible other passage and (n,) its distance, float64; -1 and inf where there is none."""
    n, directions = len(passages), passages.directions()
    nearest, distance = np.full(n, -1, dtype=np.int64), np.full(n, np.inf)
    for rows, columns, _ in nearest_others(directions, 16):
        possible = ~passages.impossible(rows[:, None], columns)
        found = possible.any(axis=1)
        nearest[rows[found]] = columns[np.arange(len(rows)), possible.argmax(axis=1)][found]
        # A passage whose nearest 16 are all impossible is compared with all others.
        for row in rows[~found].tolist():
            others = np.flatnonzero(~passages.impossible(np.array(row), np.arange(n)))
            others = others[others != row]
            if len(others):
                nearest[row] = others[(directions[others] @ directions[row]).argmax()]
    known = np.flatnonzero(nearest >= 0)
    for part in np.array_split(known, 1 + len(known) // 50_000):
        pairs = directions[part].astype(np.float64) * directions[nearest[part]]
        distance[part] = 1 - pairs.sum(axis=1)
    return nearest, distance


# ---- agglomerative clustering


def average_link(passages: Passages, dense: int = DENSE) -> Cut:
    """Average-link agglomerative clustering, cut where the mean distance of two clusters reaches the threshold.

    Up to `dense` passages: over all pairs; an impossible pair is never in one group. Beyond: over the graph of each
    passage's nearest 24 possible ones; the mean is over the pairs of the graph, other pairs are ignored, and two
    possible merges may put an impossible pair into one group.
    """
    n = len(passages)
    if n < 2:
        return lambda threshold: np.arange(n)
    if n <= dense:
        tree = _tree(passages.distances(np.arange(n), _IMPOSSIBLE))
        return lambda threshold: _cut(n, tree, threshold)
    sparse = _graph_tree(n, *_neighbor_graph(passages))
    return lambda threshold: _cut(n, sparse, threshold)


def _neighbor_graph(passages: Passages) -> tuple[Ints, Ints, Floats]:
    """Each passage with its nearest `_NEIGHBORS` possible ones, every pair once: left < right (p,), distance (p,)."""
    n = len(passages)
    pairs, distances = [], []
    for rows, columns, distance in nearest_others(passages.directions(), 4 * _NEIGHBORS):
        possible = ~passages.impossible(rows[:, None], columns)
        kept = possible & (np.cumsum(possible, axis=1) <= _NEIGHBORS)
        left, right = np.repeat(rows, kept.sum(axis=1)), columns[kept]
        pairs.append(np.minimum(left, right) * n + np.maximum(left, right))
        distances.append(distance[kept].astype(np.float64))
    pair, first = np.unique(np.concatenate(pairs), return_index=True)
    return pair // n, pair % n, np.concatenate(distances)[first]


def _tree(distance: Floats) -> tuple[Ints, Floats]:
    """Merges (m, 2) in order and their distances (m,); merge i makes node n + i. distance: (n, n)."""
    fitted = AgglomerativeClustering(
        n_clusters=None, distance_threshold=0.0, metric="precomputed", linkage="average", compute_full_tree=True
    ).fit(distance)
    return fitted.children_, fitted.distances_


def _graph_tree(n: int, left: Ints, right: Ints, distance: Floats) -> tuple[Ints, Floats]:
    """As `_tree`, from the pairs of a graph; ends with one node per connected component.

    Gives what scikit-learn gives with a connectivity, which would need a full matrix or the features: where both merged
    clusters have a distance to a neighbor, the new one is their mean weighted by size; where one has, it stays.
    """
    links: list[dict[int, float]] = [{} for _ in range(n)]
    for a, b, value in zip(left.tolist(), right.tolist(), distance.tolist(), strict=True):
        links[a][b] = links[b][a] = value
    heap = list(zip(distance.tolist(), left.tolist(), right.tolist(), strict=True))
    heapq.heapify(heap)
    size, node = [1] * n, list(range(n))
    children, heights = [], []
    while heap:
        height, a, b = heapq.heappop(heap)
        if links[a].get(b) != height:  # outdated: one of them was merged, or their distance has changed
            continue
        if len(links[a]) < len(links[b]):
            a, b = b, a
        children.append((node[a], node[b]))
        heights.append(height)
        node[a] = n + len(children) - 1
        del links[a][b], links[b][a]
        for other, value in links[b].items():  # b is merged into a, which has more links
            del links[other][b]
            known = links[a].get(other)
            if known is not None:
                value = (size[a] * known + size[b] * value) / (size[a] + size[b])
            links[a][other] = links[other][a] = value
            heapq.heappush(heap, (value, a, other))
        links[b] = {}
        size[a] += size[b]
    return np.array(children, dtype=np.int64).reshape(-1, 2), np.array(heights)


def _cut(n: int, tree: tuple[Ints, Floats], threshold: float) -> Ints:
    """(n,) Groups after the merges below the threshold, as scikit-learn cuts a tree."""
    children, distance = tree
    merges = children[: int((distance < threshold).sum())]
    parents = n + np.arange(len(merges))
    nodes = n + len(merges)
    graph = coo_matrix((np.ones(2 * len(merges)), (np.repeat(parents, 2), merges.ravel())), shape=(nodes, nodes))
    roots = connected_components(graph, directed=False)[1][:n]
    return np.unique(roots, return_inverse=True)[1]
