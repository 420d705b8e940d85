"""Reassignment against every assignment there is, on small graphs, and the case that agglomeration gets wrong."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.association.reassignment import displaced


def run(
    log_odds: np.ndarray, groups: list[list[int]], fresh: list[int], at_once: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """`log_odds` (n, n), all scored; `at_once`: pairs that cannot be one person; threshold 0."""
    n = len(log_odds)
    left, right = np.triu_indices(n, 1)
    is_fresh = np.zeros(n, dtype=bool)
    is_fresh[fresh] = True

    def apart(a: int, b: int) -> bool:
        return (min(a, b), max(a, b)) in at_once

    def score(node: int, others: Sequence[int]) -> float:
        return float(np.mean(log_odds[node, list(others)]))

    return displaced(
        groups,
        is_fresh,
        left,
        right,
        log_odds[left, right],
        threshold=0.0,
        score=score,
        impossible=lambda node, others: any(apart(node, other) for other in others),
        at_once=lambda a, b: np.array([apart(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)], dtype=bool),
    )


def graph(n: int, values: dict[tuple[int, int], float]) -> np.ndarray:
    found = np.full((n, n), -9.0)
    for (a, b), value in values.items():
        found[a, b] = found[b, a] = value
    return found


def test_who_has_another_group_makes_room() -> None:
    # 2 and 3 were seen at once. Both look like 0, and 2 also like 1: joined by the likeliest pair, 3 is left alone.
    log_odds = graph(4, {(0, 2): 5.0, (0, 3): 4.5, (1, 2): 4.0})
    assert run(log_odds, [[0, 2], [1], [3]], [2, 3], {(2, 3)}) == [(2, 0)]
    assert run(log_odds, [[0, 3], [1, 2]], [2, 3], {(2, 3)}) == []  # that is the best already
    assert run(log_odds, [[0, 2], [1], [3]], [2, 3], set()) == []  # they may be one person: nobody has to go


def test_nobody_moves_who_would_gain_less() -> None:
    log_odds = graph(4, {(0, 2): 5.0, (0, 3): 1.0, (1, 2): 0.5})
    assert run(log_odds, [[0, 2], [1], [3]], [2, 3], {(2, 3)}) == []  # 5 is more than 1 + 0.5


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 4), fresh=st.integers(2, 4))
def test_no_assignment_is_better(seed: int, groups: int, fresh: int) -> None:
    """Known nodes 0 .. groups - 1 stand alone, and all fresh ones exist at once; each begins where the likeliest pair
    puts it."""
    rng = np.random.default_rng(seed)
    n = groups + fresh
    log_odds = np.round(rng.normal(size=(n, n)), 3)
    log_odds = np.triu(log_odds, 1) + np.triu(log_odds, 1).T
    log_odds[:groups, :groups] = log_odds[groups:, groups:] = -9.0
    newcomers = list(range(groups, n))
    start: list[list[int]] = [[own] for own in range(groups)]
    likeliest = sorted((-log_odds[own, node], own, node) for own in range(groups) for node in newcomers)
    for value, own, node in likeliest:  # as agglomeration goes
        if value < 0 and len(start[own]) == 1 and not any(node in its for its in start):
            start[own].append(node)
    start += [[node] for node in newcomers if not any(node in its for its in start)]
    at_once = {(a, b) for a in newcomers for b in newcomers if a < b}
    moved = run(log_odds, start, newcomers, at_once)

    def worth(held: dict[int, int]) -> float:
        return float(sum(log_odds[own, node] for node, own in held.items()))

    now = {node: its[0] for its in start[:groups] for node in its[1:]}
    places = [*range(groups), *(-1 for _ in newcomers)]
    best = max(
        worth({node: own for node, own in zip(newcomers, chosen, strict=True) if own >= 0})
        for chosen in permutations(places, fresh)
    )
    if worth(now) >= best - 1e-9:
        assert moved == []
    else:
        assert moved and all(now[node] == own for node, own in moved)
