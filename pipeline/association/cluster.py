"""Average-link agglomerative clustering of a sparse graph under cannot-link constraints.

Starts from scored pairs. A pair of nodes that was not scored is scored once it counts, when both clusters are small;
between large ones it counts like the weakest candidate of its nodes (their k-th neighbour), which is what not being on
a shortlist says about it.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.association.nodes import Ints


@dataclass
class Link:
    """Between two clusters: the sum of log-odds over all their node pairs, and the strongest pair."""

    total: float
    best: float
    pair: tuple[int, int]

    def __add__(self, other: "Link") -> "Link":
        # The stronger pair, and of equal ones the first by index (that is by key).
        strongest = min((self, other), key=lambda link: (-link.best, link.pair))
        return Link(self.total + other.total, strongest.best, strongest.pair)


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
    weakest = np.full(nodes, np.inf)
    np.minimum.at(weakest, left, log_odds)
    np.minimum.at(weakest, right, log_odds)
    heap: list[tuple[float, int, int, int, int]] = []
    age = dict.fromkeys(range(nodes), 0)  # a cluster is named by its lowest node; its age tells old links from new

    def mean(a: int, b: int) -> float:
        return links[a][b].total / (len(members[a]) * len(members[b]))

    def offer(a: int, b: int) -> None:
        a, b = min(a, b), max(a, b)
        value = mean(a, b)
        if value >= threshold:
            heapq.heappush(heap, (-value, a, b, age[a], age[b]))

    for a, b, value in zip(left.tolist(), right.tolist(), log_odds.tolist(), strict=True):
        links[a][b] = links[b][a] = Link(value, value, (a, b))
    for a in range(nodes):
        for b in links[a]:
            if a < b:
                offer(a, b)

    joins: list[tuple[int, int]] = []
    while heap:
        _, a, b, age_a, age_b = heapq.heappop(heap)
        if a not in members or b not in members or age[a] != age_a or age[b] != age_b:
            continue
        if impossible(members[a], members[b]):
            continue
        joins.append(links[a][b].pair)
        del links[a][b], links[b][a]
        _complete(links, members, a, b, weakest, small, score)
        for other, link in links.pop(b).items():
            links[a][other] = links[other][a] = links[a][other] + link
            del links[other][b]
        members[a] = sorted(members[a] + members.pop(b))
        age[a] += 1
        for other in sorted(links[a]):
            offer(a, other)

    near = [
        links[a][b].pair
        for a in sorted(members)
        for b in sorted(links[a])
        if a < b and mean(a, b) >= review and not impossible(members[a], members[b])
    ]
    return Clusters([members[a] for a in sorted(members)], sorted(joins), near)


def _complete(
    links: dict[int, dict[int, Link]],
    members: dict[int, list[int]],
    a: int,
    b: int,
    weakest: np.ndarray,
    small: int,
    score: Callable[[Ints, Ints], np.ndarray],
) -> None:
    """Before a and b merge: gives each neighbour of one a link to the other too."""
    missing: list[tuple[int, int]] = []
    merged = len(members[a]) + len(members[b])
    for known, unknown in ((a, b), (b, a)):
        for other in sorted(set(links[known]) - set(links[unknown])):
            missing.append((unknown, other))
    to_score = [pair for pair in missing if merged <= small and len(members[pair[1]]) <= small]
    pairs = [(min(i, j), max(i, j)) for mine, other in to_score for i in members[mine] for j in members[other]]
    values = dict(zip(pairs, _scored(pairs, score), strict=True))
    for mine, other in missing:
        total, best, strongest = 0.0, -np.inf, (-1, -1)
        for i in members[mine]:
            for j in members[other]:
                pair = (min(i, j), max(i, j))
                value = values.get(pair)
                if value is None:  # it counts, but is no evidence
                    total += min(weakest[i], weakest[j])
                    continue
                total += value
                if (-value, pair) < (-best, strongest):
                    best, strongest = value, pair
        links[mine][other] = links[other][mine] = Link(total, best, strongest)


def _scored(pairs: list[tuple[int, int]], score: Callable[[Ints, Ints], np.ndarray]) -> list[float]:
    if not pairs:
        return []
    columns = np.array(pairs, dtype=np.int64)
    values: list[float] = score(columns[:, 0], columns[:, 1]).tolist()
    return values
