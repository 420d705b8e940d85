"""Average-link agglomerative clustering of a sparse graph under cannot-link constraints.

Input are scored pairs of nodes. An unscored pair is assumed to be as strong as the strongest scored pair between the
same two clusters, which bounds their mean log-odds from above. Only when that bound reaches the threshold are the
missing pairs looked at: between small clusters they are scored; between larger ones each counts like the weaker of the
two nodes' weakest scored pairs (their k-th neighbor), since it was on neither shortlist. Most clusters stay apart under
the bound, so few pairs are scored here.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from schemas.arrays import Floats, Ints


class Link(NamedTuple):
    """The known pairs between two clusters."""

    total: float  # sum of their log-odds
    pairs: int
    best: float  # log-odds of the strongest scored pair
    best_pair: tuple[int, int]

    def with_(self, other: "Link") -> "Link":
        """Both together. The stronger pair; of equally strong ones the first by index, that is by key."""
        strongest = min((self, other), key=lambda link: (-link.best, link.best_pair))
        return Link(self.total + other.total, self.pairs + other.pairs, strongest.best, strongest.best_pair)


@dataclass(frozen=True)
class Clusters:
    groups: list[list[int]]  # every node once; groups and their nodes ascending
    joins: list[tuple[int, int]]  # the strongest pair of each merge; of `joined` the pair itself
    reviews: list[tuple[int, int]]  # the strongest pair of each two groups in the review band


def average_link(
    nodes: int,
    left: Ints,
    right: Ints,
    log_odds: Floats,
    *,
    threshold: float,
    review: float,
    small: int,
    score: Callable[[Ints, Ints], Floats],
    impossible: Callable[[list[int], list[int]], bool],
    joined: Sequence[tuple[int, int]] = (),
) -> Clusters:
    """Merges the two clusters with the highest mean log-odds until no mean reaches `threshold`.

    left, right, log_odds: (p,) scored pairs, left < right. review: lower end of the review band, in which two groups
    stay apart and are reported. small: largest cluster whose unscored pairs are scored. score: log-odds of further
    pairs. impossible: whether two clusters must not be merged. joined: scored pairs whose clusters are merged first,
    whatever their log-odds, where that is not impossible. Ties break by node index.
    """
    members: dict[int, list[int]] = {node: [node] for node in range(nodes)}
    links: dict[int, dict[int, Link]] = {node: {} for node in range(nodes)}
    version = dict.fromkeys(range(nodes), 0)  # of each cluster, by its lowest node; marks heap entries as outdated
    weakest = np.full(nodes, np.inf)  # log-odds of each node's weakest scored pair
    np.minimum.at(weakest, left, log_odds)
    np.minimum.at(weakest, right, log_odds)
    scored = dict(zip(zip(left.tolist(), right.tolist(), strict=True), log_odds.tolist(), strict=True))
    heap: list[tuple[float, int, int, int, int]] = []  # (-mean, cluster, cluster, version, version)

    def unknown(a: int, b: int) -> int:
        """Number of pairs between the two clusters without a value."""
        return len(members[a]) * len(members[b]) - links[a][b].pairs

    def mean_bound(a: int, b: int) -> float:
        """Mean log-odds between the two clusters; an upper bound while pairs are unknown."""
        link = links[a][b]
        return (link.total + unknown(a, b) * link.best) / (len(members[a]) * len(members[b]))

    def offer(a: int, b: int) -> None:
        """Puts the merge of two clusters on the heap if their mean may reach the threshold."""
        if links[a][b].best < threshold:
            return  # no mean exceeds its strongest pair
        a, b = min(a, b), max(a, b)
        if (value := mean_bound(a, b)) >= threshold:
            heapq.heappush(heap, (-value, a, b, version[a], version[b]))

    def complete(a: int, b: int) -> None:
        """Gives a value to every pair between the two clusters."""
        every = [(min(i, j), max(i, j)) for i in members[a] for j in members[b]]
        if max(len(members[a]), len(members[b])) <= small:
            missing = [pair for pair in every if pair not in scored]
            columns = np.array(missing, dtype=np.int64)
            scored.update(zip(missing, score(columns[:, 0], columns[:, 1]).tolist(), strict=True))
        values = [scored.get(pair, min(weakest[pair[0]], weakest[pair[1]])) for pair in every]
        negative, best_pair = min((-scored[pair], pair) for pair in every if pair in scored)
        links[a][b] = links[b][a] = Link(float(sum(values)), len(every), -negative, best_pair)

    for (a, b), value in scored.items():
        links[a][b] = links[b][a] = Link(value, 1, value, (a, b))
        offer(a, b)

    joins: list[tuple[int, int]] = []

    def merge(a: int, b: int) -> None:
        """Moves cluster b into cluster a, the lower one."""
        del links[a][b], links[b][a]
        for other, link in links.pop(b).items():
            known = links[a].get(other)
            links[a][other] = links[other][a] = link if known is None else known.with_(link)
            del links[other][b]
        members[a] = sorted(members[a] + members.pop(b))
        version[a] += 1
        for other in links[a]:
            offer(a, other)

    home = {node: node for pair in joined for node in pair}
    for pair in joined:
        a, b = sorted(home[node] for node in pair)
        if a != b and not impossible(members[a], members[b]):
            joins.append(pair)
            merge(a, b)
            home |= {node: a for node, cluster in home.items() if cluster == b}
    while heap:
        _, a, b, version_a, version_b = heapq.heappop(heap)
        if a not in members or b not in members or version[a] != version_a or version[b] != version_b:
            continue
        if unknown(a, b):
            complete(a, b)
            offer(a, b)
            continue
        if impossible(members[a], members[b]):
            continue
        joins.append(links[a][b].best_pair)
        merge(a, b)

    reviews = []
    for a in sorted(members):
        for b in sorted(links[a]):
            if a < b and links[a][b].best >= review and mean_bound(a, b) >= review:
                if unknown(a, b):
                    complete(a, b)
                if mean_bound(a, b) >= review and not impossible(members[a], members[b]):
                    reviews.append(links[a][b].best_pair)
    return Clusters([members[a] for a in sorted(members)], sorted(joins), reviews)
