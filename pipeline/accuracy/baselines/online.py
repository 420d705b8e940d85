"""Baselines in time order: one passage, or one batch of minutes, after the other joins running identities."""

from itertools import pairwise

import numpy as np
from sklearn.cluster import HDBSCAN

from pipeline.accuracy.baselines.passages import CELLS, Cut, Passages
from pipeline.association.matching import best_matching
from schemas.arrays import Bools, Floats, Ints, Singles

#: Length of a micro-batch, microseconds.
BATCH_US = 300_000_000
#: A cluster may be assigned to this many of its nearest running identities.
_NEAREST_IDENTITIES = 32
#: Distance of an impossible pair in HDBSCAN, which needs finite ones: larger than any cosine distance.
_IMPOSSIBLE = 4.0


class _Means:
    """Mean directions (m, D) of running identities, scaled to length 1."""

    def __init__(self, width: int) -> None:
        self._count = 0
        self._sums = np.zeros((1024, width), np.float32)  # (capacity, D)
        self._means = np.zeros_like(self._sums)

    def __len__(self) -> int:
        return self._count

    def all(self) -> Singles:
        return self._means[: self._count]

    def of(self, identity: int) -> Singles:
        row: Singles = self._means[identity]
        return row

    def add(self, identities: Ints, sums: Singles) -> None:
        """Adds sums of directions (c, D) to c different identities; new ones continue the numbering."""
        self._count = max(self._count, int(identities.max()) + 1)
        while self._count > len(self._sums):
            self._sums, self._means = (np.concatenate([a, np.zeros_like(a)]) for a in (self._sums, self._means))
        self._sums[identities] += sums
        total = self._sums[identities]
        # Opposite directions may cancel; such a mean is zero, and near to nothing.
        self._means[identities] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


# ---- greedy


def greedy(passages: Passages) -> Cut:
    """One passage after the other, by end time, joins the running identity with the nearest mean direction.

    Only identities without an impossible passage count, and only if nearer than the threshold; else the passage starts
    an identity.
    """
    directions = passages.directions()
    order = np.lexsort((np.arange(len(passages)), passages.end_us))

    def cut(threshold: float) -> Ints:
        return _Greedy(passages, directions, threshold).run(order)

    return cut


class _Greedy:
    """The running identities.

    Passages are compared with the means a block at a time; means that change within a block are compared one by one.
    """

    _BLOCK = 128

    def __init__(self, passages: Passages, directions: Singles, threshold: float) -> None:
        self.passages, self.directions, self.min_similarity = passages, directions, 1 - threshold
        self.members: list[list[int]] = []
        self.means = _Means(directions.shape[1])

    def run(self, order: Ints) -> Ints:
        """(n,) The identity of each passage."""
        first = 0
        while first < len(order):
            step = max(1, min(self._BLOCK, CELLS // max(len(self.members), 1)))
            self._add_block(order[first : first + step])
            first += step
        groups = np.empty(len(order), dtype=np.int64)
        for number, members in enumerate(self.members):
            groups[members] = number
        return groups

    def _add_block(self, block: Ints) -> None:
        known = len(self.members)
        similarity = self.directions[block] @ self.means.all().T  # (r, known), -inf once a mean has changed
        slots: dict[int, int] = {}  # identity that changed in this block -> its row in `changed`
        changed = np.zeros((len(block), self.directions.shape[1]), np.float32)  # new means
        changed_identity = np.zeros(len(block), dtype=np.int64)
        for row, passage in enumerate(block.tolist()):
            direction = self.directions[passage]
            near = np.flatnonzero(similarity[row] > self.min_similarity)
            changed_similarity = changed[: len(slots)] @ direction
            near_changed = np.flatnonzero(changed_similarity > self.min_similarity)
            identities = np.concatenate([near, changed_identity[near_changed]])
            similarities = np.concatenate([similarity[row, near], changed_similarity[near_changed]])
            identity = self._choose(passage, identities[np.lexsort((identities, -similarities))])
            self._attach(identity, passage, direction)
            slot = slots.setdefault(identity, len(slots))
            changed[slot], changed_identity[slot] = self.means.of(identity), identity
            if identity < known:
                similarity[:, identity] = -np.inf

    def _choose(self, passage: int, identities: Ints) -> int:
        """The first identity that is possible, or the number of a new one."""
        for identity in identities.tolist():
            if not self.passages.impossible(np.array(passage), np.array(self.members[identity])).any():
                return int(identity)
        return len(self.members)

    def _attach(self, identity: int, passage: int, direction: Singles) -> None:
        if identity == len(self.members):
            self.members.append([])
        self.members[identity].append(passage)
        self.means.add(np.array([identity]), direction[None])


# ---- micro-batches


def micro_batches(passages: Passages, batch_us: int = BATCH_US) -> Cut:
    """HDBSCAN in each batch of `batch_us`, by end time, then an optimal assignment of clusters to running identities.

    HDBSCAN itself has no threshold (with a cluster_selection_epsilon, scikit-learn's fails on some small batches); its
    noise points become clusters of their own. Members of a cluster that cannot be one person are taken out, those far
    from the mean first, and assigned to the batch's other clusters below the threshold, or become new ones. Then
    clusters and running identities are matched one to one, maximizing the sum of threshold - distance of mean
    directions, among each cluster's nearest 32; an edge with an impossible pair of passages is left out. Assignments
    are final.
    """
    directions = passages.directions()
    order = np.lexsort((np.arange(len(passages)), passages.end_us // batch_us))
    edges = np.flatnonzero(np.diff(passages.end_us[order] // batch_us)) + 1
    batches = [rows for rows in np.split(order, edges) if len(rows)]

    def cut(threshold: float) -> Ints:
        groups = np.full(len(passages), -1, dtype=np.int64)
        means = _Means(directions.shape[1])
        for rows in batches:
            cluster = _without_conflicts(passages, directions, rows, _hdbscan(passages, rows), threshold)
            sums = np.zeros((int(cluster.max()) + 1, directions.shape[1]), np.float32)
            np.add.at(sums, cluster, directions[rows])
            identity = _assign(passages, rows, cluster, sums, groups, means, threshold)
            groups[rows] = identity[cluster]
            means.add(identity, sums)
        return groups

    return cut


def _hdbscan(passages: Passages, rows: Ints) -> Ints:
    """(r,) Cluster of each passage, from 0."""
    if len(rows) < 2:
        return np.zeros(len(rows), dtype=np.int64)
    found = HDBSCAN(
        min_cluster_size=2,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    ).fit_predict(passages.distances(rows, _IMPOSSIBLE))
    noise = found < 0
    clusters: Ints = found.astype(np.int64)
    clusters[noise] = clusters.max() + 1 + np.arange(noise.sum())
    return clusters


def _without_conflicts(passages: Passages, directions: Singles, rows: Ints, cluster: Ints, threshold: float) -> Ints:
    """(r,) Clusters, from 0, without impossible pairs."""
    cluster = cluster.copy()
    removed: list[int] = []
    for number in np.flatnonzero(np.bincount(cluster) > 1).tolist():
        members = np.flatnonzero(cluster == number)
        conflict = passages.impossible(rows[members][:, None], rows[members][None])
        np.fill_diagonal(conflict, False)
        if not conflict.any():
            continue
        similarity = directions[rows[members]] @ directions[rows[members]].sum(axis=0)
        kept: list[int] = []
        for at in np.argsort(-similarity, kind="stable").tolist():
            if conflict[at, kept].any():
                removed.append(int(members[at]))
            else:
                kept.append(at)
    if not removed:
        return cluster
    cluster[removed] = -1
    out, clusters = np.array(removed), int(cluster.max()) + 1
    sums = np.zeros((clusters, directions.shape[1]), np.float32)
    np.add.at(sums, cluster[cluster >= 0], directions[rows[cluster >= 0]])
    near = directions[rows[out]] @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T  # (o, clusters) similarity
    for number in range(clusters):
        members = rows[cluster == number]
        near[passages.impossible(rows[out][:, None], members[None]).any(axis=1), number] = -np.inf
    left, right = np.nonzero(near > 1 - threshold)
    chosen = best_matching(left, right, near[left, right].astype(np.float64) - (1 - threshold))
    cluster[out] = clusters + np.arange(len(out))
    cluster[out[left[chosen]]] = right[chosen]
    renumbered: Ints = np.unique(cluster, return_inverse=True)[1]
    return renumbered


def _assign(
    passages: Passages, rows: Ints, cluster: Ints, sums: Singles, groups: Ints, means: _Means, threshold: float
) -> Ints:
    """(c,) The identity of each cluster; new ones continue the numbering."""
    identity = np.full(len(sums), -1, dtype=np.int64)
    if len(means):
        left, right, distance = _near_identities(sums, means, threshold)
        possible = ~_impossible(passages, rows, cluster, groups, left, right)
        left, right, gain = left[possible], right[possible], threshold - distance[possible]
        chosen = best_matching(left, right, gain)
        identity[left[chosen]] = right[chosen]
    new = np.flatnonzero(identity < 0)
    identity[new] = len(means) + np.arange(len(new))
    return identity


def _near_identities(sums: Singles, means: _Means, threshold: float) -> tuple[Ints, Ints, Floats]:
    """Clusters (p,) and identities (p,) nearer than the threshold, and their distances (p,)."""
    centers = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    lefts, rights, distances = [], [], []
    step = max(1, CELLS // len(means))
    k = _NEAREST_IDENTITIES
    for first in range(0, len(centers), step):
        distance = 1 - centers[first : first + step] @ means.all().T  # (c, m)
        if len(means) > k:
            distance[distance > np.partition(distance, k - 1, axis=1)[:, k - 1 : k]] = np.inf
        left, right = np.nonzero(distance < threshold)
        lefts.append(left + first)
        rights.append(right)
        distances.append(distance[left, right].astype(np.float64))
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(distances)


def _impossible(passages: Passages, rows: Ints, cluster: Ints, groups: Ints, left: Ints, right: Ints) -> Bools:
    """(p,) Whether any passage of the cluster `left` and any of the identity `right` cannot be one person."""
    new, new_begin = _by_group(cluster, rows)
    known = np.flatnonzero(groups >= 0)
    old, old_begin = _by_group(groups[known], known)
    new_count, old_count = np.diff(new_begin)[left], np.diff(old_begin)[right]
    result = np.zeros(len(left), dtype=bool)
    total = np.cumsum(new_count * old_count)
    cuts = np.searchsorted(total, np.arange(0, int(total[-1]) if len(total) else 0, CELLS // 8)[1:])
    for first, last in pairwise(np.unique(np.concatenate([[0], cuts, [len(left)]])).tolist()):
        count = (new_count * old_count)[first:last]
        pair = np.repeat(np.arange(first, last), count)
        offset = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
        one = new[new_begin[left[pair]] + offset // old_count[pair]]
        other = old[old_begin[right[pair]] + offset % old_count[pair]]
        result[pair[passages.impossible(one, other)]] = True
    return result


def _by_group(group: Ints, items: Ints) -> tuple[Ints, Ints]:
    """The items sorted by group, and where each group begins: those of group g are at begin[g]:begin[g + 1]."""
    begin = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return items[np.argsort(group, kind="stable")], begin
