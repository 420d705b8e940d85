"""Nodes that people's answers bind: which must be one person, which cannot be, and which are taken apart for it.

An answer outweighs an automatic join. Where it cannot be followed because of what a node holds besides, the node is
taken apart into its members, which are compared again.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from pipeline.association.associate import Answers
from pipeline.association.geometry import time_gaps
from pipeline.resolve.constraints import Bound, Pair
from pipeline.resolve.window_nodes import LevelRun, Node, as_columns, members_as_nodes


def node_pairs(bound: Bound, nodes: Sequence[Node]) -> Answers:
    """What is said of pairs of nodes. nodes: sorted by key."""
    return Answers(_pairs(bound.must, bound, nodes), _pairs(bound.cannot, bound, nodes))


def taken_apart(run: LevelRun, bound: Bound, nodes: Sequence[Node]) -> list[Node]:
    """The nodes, sorted by key; instead of those that stand in the way of an answer, their members."""
    if not bound:
        return list(nodes)
    holders = _holders(bound, nodes)
    apart = {node for a, b in bound.cannot for node in holders.get(a, set()) & holders.get(b, set())}
    said = {name for pair in bound.must for name in pair}
    for group in _connected(_pairs(bound.must, bound, nodes)):
        if _is_two(run, bound, [nodes[node] for node in group]):
            members = [part for node in group for part in members_as_nodes(run, nodes[node])]
            if not _is_two(run, bound, [part for part in members if bound.passages(part.identity.tracklets) & said]):
                apart |= group
    found = [part for i, node in enumerate(nodes) for part in (members_as_nodes(run, node) if i in apart else [node])]
    return sorted(found, key=lambda node: node.key)


def _holders(bound: Bound, nodes: Sequence[Node]) -> dict[bytes, set[int]]:
    """Name of a passage -> the node that holds it; several, where its crops became several tracklets."""
    holders: dict[bytes, set[int]] = {}
    for number, node in enumerate(nodes):
        for name in bound.passages(node.identity.tracklets):
            holders.setdefault(name, set()).add(number)
    return holders


def _pairs(pairs: Iterable[Pair], bound: Bound, nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """The different nodes that hold the passages of each pair, the lower one first."""
    holders = _holders(bound, nodes) if bound else {}
    found = {(min(i, j), max(i, j)) for a, b in pairs for i in holders.get(a, ()) for j in holders.get(b, ()) if i != j}
    return sorted(found)


def _connected(pairs: Iterable[tuple[int, int]]) -> list[set[int]]:
    groups: list[set[int]] = []
    for pair in pairs:
        touching = [group for group in groups if group & {*pair}]
        groups = [group for group in groups if group not in touching] + [set(pair).union(*touching)]
    return groups


def _is_two(run: LevelRun, bound: Bound, nodes: Sequence[Node]) -> bool:
    """Whether two of the nodes cannot be one person, because of times and places or by an answer."""
    nodes = sorted(nodes, key=lambda node: node.key)
    pairs = np.array(list(combinations(range(len(nodes)), 2)), dtype=np.int64).reshape(-1, 2)
    if not len(pairs):
        return False
    gates = time_gaps(as_columns(nodes), run.geometry, pairs[:, 0], pairs[:, 1]).impossible
    return bool(gates.any()) or bool(_pairs(bound.cannot, bound, nodes))
