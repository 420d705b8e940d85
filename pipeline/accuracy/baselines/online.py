"""As time goes by: one passage after the other, or one batch of minutes after the other, joins running identities."""

from itertools import pairwise

import numpy as np
from sklearn.cluster import HDBSCAN

from pipeline.accuracy.baselines.passages import CELLS, Cut, Passages
from pipeline.association.matching import best_matching
from schemas.arrays import Bools, Floats, Ints, Singles

#: A micro-batch, microseconds.
BATCH_US = 300_000_000
#: Running identities that a cluster may be assigned to: its nearest ones.
_RIVALS = 32
#: An impossible pair in HDBSCAN, which takes only finite distances: beyond any cosine distance.
_APART = 4.0


class _Means:
    """Mean directions of running identities, (m, D) rows of length 1."""

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
        """Adds `sums` (c, D) of directions to different identities; new ones are numbered on from those there are."""
        self._count = max(self._count, int(identities.max()) + 1)
        while self._count > len(self._sums):
            self._sums, self._means = (np.concatenate([a, np.zeros_like(a)]) for a in (self._sums, self._means))
        self._sums[identities] += sums
        total = self._sums[identities]
        # Opposite directions cancel; then the mean points nowhere and is near nobody.
        self._means[identities] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


# ---- greedy


def greedy(passages: Passages) -> Cut:
    """One passage after the other, by end: it joins the running identity whose mean direction is nearest among those
    with which no passage of theirs forbids it, if nearer than the threshold; else it begins one.
    """
    directions = passages.directions()
    order = np.lexsort((np.arange(len(passages)), passages.end_us))

    def cut(most: float) -> Ints:
        return _Greedy(passages, directions, most).run(order)

    return cut


class _Greedy:
    """The identities so far. Means are compared a block of passages at a time; those that change meanwhile, singly."""

    _BLOCK = 128

    def __init__(self, passages: Passages, directions: Singles, most: float) -> None:
        self.passages, self.directions, self.least = passages, directions, 1 - most
        self.members: list[list[int]] = []
        self.means = _Means(directions.shape[1])

    def run(self, order: Ints) -> Ints:
        first = 0
        while first < len(order):
            step = max(1, min(self._BLOCK, CELLS // max(len(self.members), 1)))
            self._block(order[first : first + step])
            first += step
        groups = np.empty(len(order), dtype=np.int64)
        for number, members in enumerate(self.members):
            groups[members] = number
        return groups

    def _block(self, block: Ints) -> None:
        known = len(self.members)
        similarity = self.directions[block] @ self.means.all().T  # (r, known), -inf once a mean has changed
        slots: dict[int, int] = {}  # identities that changed in this block: where their new mean stands
        changed = np.zeros((len(block), self.directions.shape[1]), np.float32)
        names = np.zeros(len(block), dtype=np.int64)
        for row, passage in enumerate(block.tolist()):
            direction = self.directions[passage]
            near = np.flatnonzero(similarity[row] > self.least)
            late = changed[: len(slots)] @ direction
            later = np.flatnonzero(late > self.least)
            identities = np.concatenate([near, names[later]])
            likeness = np.concatenate([similarity[row, near], late[later]])
            own = self._choose(passage, identities[np.lexsort((identities, -likeness))])
            self._attach(own, passage, direction)
            slot = slots.setdefault(own, len(slots))
            changed[slot], names[slot] = self.means.of(own), own
            if own < known:
                similarity[:, own] = -np.inf

    def _choose(self, passage: int, identities: Ints) -> int:
        """The first that is possible, or a new one's number."""
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
    """HDBSCAN in each batch of `batch_us` by the passages' ends, and its clusters assigned to the running identities.

    Threshold: `most`, to which a cluster's mean direction may lie from an identity's. HDBSCAN gets none: with a
    cluster_selection_epsilon scikit-learn's fails on some small batches. What it takes for noise is a cluster of its
    own. Members of a cluster that cannot be one person are taken out, those far from its mean first, and assigned to
    the batch's other clusters below `most`, or begin one. Then clusters and identities are matched one to one, so that
    the sum of `most` - distance is largest, among each cluster's nearest 32; a pair in which any two passages are
    impossible is none. Nobody is matched later.
    """
    directions = passages.directions()
    order = np.lexsort((np.arange(len(passages)), passages.end_us // batch_us))
    edges = np.flatnonzero(np.diff(passages.end_us[order] // batch_us)) + 1
    batches = [rows for rows in np.split(order, edges) if len(rows)]

    def cut(most: float) -> Ints:
        groups = np.full(len(passages), -1, dtype=np.int64)
        means = _Means(directions.shape[1])
        for rows in batches:
            cluster = _without_conflicts(passages, directions, rows, _hdbscan(passages, rows), most)
            sums = np.zeros((int(cluster.max()) + 1, directions.shape[1]), np.float32)
            np.add.at(sums, cluster, directions[rows])
            named = _assigned(passages, rows, cluster, sums, groups, means, most)
            groups[rows] = named[cluster]
            means.add(named, sums)
        return groups

    return cut


def _hdbscan(passages: Passages, rows: Ints) -> Ints:
    """(r,) Cluster of each, from 0."""
    if len(rows) < 2:
        return np.zeros(len(rows), dtype=np.int64)
    found = HDBSCAN(
        min_cluster_size=2,
        metric="precomputed",
        allow_single_cluster=True,
        copy=True,
    ).fit_predict(passages.distances(rows, _APART))
    noise = found < 0
    clusters: Ints = found.astype(np.int64)
    clusters[noise] = clusters.max() + 1 + np.arange(noise.sum())
    return clusters


def _without_conflicts(passages: Passages, directions: Singles, rows: Ints, cluster: Ints, most: float) -> Ints:
    """(r,) Clusters from 0 in which everybody may be one person."""
    cluster = cluster.copy()
    out: list[int] = []
    for number in np.flatnonzero(np.bincount(cluster) > 1).tolist():
        members = np.flatnonzero(cluster == number)
        conflict = passages.impossible(rows[members][:, None], rows[members][None])
        np.fill_diagonal(conflict, False)
        if not conflict.any():
            continue
        likeness = directions[rows[members]] @ directions[rows[members]].sum(axis=0)
        kept: list[int] = []
        for at in np.argsort(-likeness, kind="stable").tolist():
            if conflict[at, kept].any():
                out.append(int(members[at]))
            else:
                kept.append(at)
    if not out:
        return cluster
    cluster[out] = -1
    taken, clusters = np.array(out), int(cluster.max()) + 1
    sums = np.zeros((clusters, directions.shape[1]), np.float32)
    np.add.at(sums, cluster[cluster >= 0], directions[rows[cluster >= 0]])
    near = directions[rows[taken]] @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T  # (o, clusters)
    for number in range(clusters):
        against = rows[cluster == number]
        near[passages.impossible(rows[taken][:, None], against[None]).any(axis=1), number] = -np.inf
    left, right = np.nonzero(near > 1 - most)
    chosen = best_matching(left, right, near[left, right].astype(np.float64) - (1 - most))
    cluster[taken] = clusters + np.arange(len(taken))
    cluster[taken[left[chosen]]] = right[chosen]
    renumbered: Ints = np.unique(cluster, return_inverse=True)[1]
    return renumbered


def _assigned(
    passages: Passages, rows: Ints, cluster: Ints, sums: Singles, groups: Ints, means: _Means, most: float
) -> Ints:
    """(c,) The identity of each cluster, new ones numbered on."""
    named = np.full(len(sums), -1, dtype=np.int64)
    if len(means):
        left, right, distance = _rivals(sums, means, most)
        possible = ~_impossible(passages, rows, cluster, groups, left, right)
        left, right, gain = left[possible], right[possible], most - distance[possible]
        chosen = best_matching(left, right, gain)
        named[left[chosen]] = right[chosen]
    new = np.flatnonzero(named < 0)
    named[new] = len(means) + np.arange(len(new))
    return named


def _rivals(sums: Singles, means: _Means, most: float) -> tuple[Ints, Ints, Floats]:
    """Pairs (cluster, identity) nearer than `most`, each cluster's nearest `_RIVALS`, and their distances (p,)."""
    centers = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    lefts, rights, distances = [], [], []
    step = max(1, CELLS // len(means))
    for first in range(0, len(centers), step):
        distance = 1 - centers[first : first + step] @ means.all().T  # (c, m)
        if len(means) > _RIVALS:
            distance[distance > np.partition(distance, _RIVALS - 1, axis=1)[:, _RIVALS - 1 : _RIVALS]] = np.inf
        left, right = np.nonzero(distance < most)
        lefts.append(left + first)
        rights.append(right)
        distances.append(distance[left, right].astype(np.float64))
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(distances)


def _impossible(passages: Passages, rows: Ints, cluster: Ints, groups: Ints, left: Ints, right: Ints) -> Bools:
    """(p,) Whether any passage of a cluster and any of an identity cannot be one person."""
    mine, mine_from = _by_group(cluster, rows)
    known = np.flatnonzero(groups >= 0)
    theirs, theirs_from = _by_group(groups[known], known)
    a, b = np.diff(mine_from)[left], np.diff(theirs_from)[right]
    result = np.zeros(len(left), dtype=bool)
    total = np.cumsum(a * b)
    cuts = np.searchsorted(total, np.arange(0, int(total[-1]) if len(total) else 0, CELLS // 8)[1:])
    for first, last in pairwise(np.unique(np.concatenate([[0], cuts, [len(left)]])).tolist()):
        many = (a * b)[first:last]
        pair = np.repeat(np.arange(first, last), many)
        offset = np.arange(len(pair)) - np.repeat(np.cumsum(many) - many, many)
        one = mine[mine_from[left[pair]] + offset // b[pair]]
        other = theirs[theirs_from[right[pair]] + offset % b[pair]]
        result[pair[passages.impossible(one, other)]] = True
    return result


def _by_group(group: Ints, items: Ints) -> tuple[Ints, Ints]:
    """The items by group, and where each group begins: those of group g stand at begin[g]:begin[g + 1]."""
    begin = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return items[np.argsort(group, kind="stable")], begin
