"""Average-link agglomerative clustering of a sparse graph under cannot-link constraints.

Starts from scored pairs. A pair of nodes that was not scored counts like the strongest scored one between the same two
clusters, until with that they would be joined: then it is scored, when both clusters are small. Between large ones it
counts like the weakest candidate of its nodes (their k-th neighbor), which is what not being on a shortlist says about
it. Most clusters stay far apart with any guess, so few pairs are ever scored here.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from schemas.arrays import Ints


@dataclass(frozen=True, slots=True)
class Link:
    """Between two clusters: the sum of log-odds over node pairs, over how many, and the strongest scored pair."""

    total: float
    pairs: int
    best: float
    pair: tuple[int, int]

    def __add__(self, other: "Link") -> "Link":
        # The stronger pair, and of equal ones the first by index (that is by key).
        strongest = min((self, other), key=lambda link: (-link.best, link.pair))
        return Link(self.total + other.total, self.pairs + other.pairs, strongest.best, strongest.pair)


@dataclass(frozen=True)
class Clusters:
    groups: list[list[int]]  # every node once; groups and their nodes ascending
    joins: list[tuple[int, int]]  # the strongest pair of each merge that was made
    near: list[tuple[int, int]]  # the strongest pair of two groups that stayed apart, yet reach `review`


def average_link(
    nodes: int,
    left: Ints,
    right: Ints,
    log_odds: np.ndarray,
    *,
    threshold: float,
    review: float,
    small: int,
    score: Callable[[Ints, Ints], np.ndarray],
    impossible: Callable[[list[int], list[int]], bool],
) -> Clusters:
    """Merges the two clusters with the highest mean log-odds until none reaches `threshold`.

    `left < right` are scored pairs; `score` gives the log-odds of further ones; `impossible` forbids a merge. Groups
    that stay apart with a mean of at least `review` are told. Ties fall to the lower node index.
    """
    members: dict[int, list[int]] = {node: [node] for node in range(nodes)}
    links: dict[int, dict[int, Link]] = {node: {} for node in range(nodes)}
    age = dict.fromkeys(range(nodes), 0)  # a cluster is named by its lowest node; its age tells old links from new
    weakest = np.full(nodes, np.inf)
    np.minimum.at(weakest, left, log_odds)
    np.minimum.at(weakest, right, log_odds)
    scored = dict(zip(zip(left.tolist(), right.tolist(), strict=True), log_odds.tolist(), strict=True))
    heap: list[tuple[float, int, int, int, int]] = []

    def unknown(a: int, b: int) -> int:
        return len(members[a]) * len(members[b]) - links[a][b].pairs

    def mean(a: int, b: int) -> float:
        """What it is at most, where pairs are unknown that are no stronger than those that are known."""
        link = links[a][b]
        return (link.total + unknown(a, b) * link.best) / (len(members[a]) * len(members[b]))

    def offer(a: int, b: int) -> None:
        if links[a][b].best < threshold:
            return  # no mean is above its strongest pair
        a, b = min(a, b), max(a, b)
        if (value := mean(a, b)) >= threshold:
            heapq.heappush(heap, (-value, a, b, age[a], age[b]))

    def complete(a: int, b: int) -> None:
        """Puts a value to each pair between the two."""
        every = [(min(i, j), max(i, j)) for i in members[a] for j in members[b]]
        if max(len(members[a]), len(members[b])) <= small:
            missing = [pair for pair in every if pair not in scored]
            columns = np.array(missing, dtype=np.int64)
            scored.update(zip(missing, score(columns[:, 0], columns[:, 1]).tolist(), strict=True))
        values = [scored.get(pair, min(weakest[pair[0]], weakest[pair[1]])) for pair in every]
        best, strongest = min((-scored[pair], pair) for pair in every if pair in scored)
        links[a][b] = links[b][a] = Link(float(sum(values)), len(every), -best, strongest)

    for (a, b), value in scored.items():
        links[a][b] = links[b][a] = Link(value, 1, value, (a, b))
        offer(a, b)

    joins: list[tuple[int, int]] = []
    while heap:
        _, a, b, age_a, age_b = heapq.heappop(heap)
        if a not in members or b not in members or age[a] != age_a or age[b] != age_b:
            continue
        if unknown(a, b):
            complete(a, b)
            offer(a, b)
            continue
        if impossible(members[a], members[b]):
            continue
        joins.append(links[a][b].pair)
        del links[a][b], links[b][a]
        for other, link in links.pop(b).items():
            known = links[a].get(other)
            links[a][other] = links[other][a] = link if known is None else known + link
            del links[other][b]
        members[a] = sorted(members[a] + members.pop(b))
        age[a] += 1
        for other in links[a]:
            offer(a, other)

    near = []
    for a in sorted(members):
        for b in sorted(links[a]):
            if a < b and links[a][b].best >= review and mean(a, b) >= review:
                if unknown(a, b):
                    complete(a, b)
                if mean(a, b) >= review and not impossible(members[a], members[b]):
                    near.append(links[a][b].pair)
    return Clusters([members[a] for a in sorted(members)], sorted(joins), near)
