"""Reassignment: equals the best of all assignments on small graphs, and mends what agglomeration gets wrong."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.association.reassignment import joins_to_undo
from schemas.arrays import Floats


def run(
    log_odds: Floats, groups: list[list[int]], fresh: list[int], conflicts: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """log_odds: (n, n), all scored. conflicts: pairs that cannot be one person. The threshold is 0."""
    n = len(log_odds)
    left, right = np.triu_indices(n, 1)
    is_fresh = np.zeros(n, dtype=bool)
    is_fresh[fresh] = True

    def conflict(a: int, b: int) -> bool:
        return (min(a, b), max(a, b)) in conflicts

    def score(node: int, others: Sequence[int]) -> float:
        return float(np.mean(log_odds[node, list(others)]))

    return joins_to_undo(
        groups,
        is_fresh,
        left,
        right,
        log_odds[left, right],
        threshold=0.0,
        score=score,
        impossible=lambda node, others: any(conflict(node, other) for other in others),
        conflict=lambda a, b: np.array(
            [conflict(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)], dtype=bool
        ),
    )


def graph(n: int, values: dict[tuple[int, int], float]) -> Floats:
    found = np.full((n, n), -9.0)
    for (a, b), value in values.items():
        found[a, b] = found[b, a] = value
    return found


def test_a_node_with_a_second_choice_is_moved() -> None:
    # 2 and 3 cannot be one person. Both match 0, and 2 also matches 1: merging the strongest pair leaves 3 alone.
    log_odds = graph(4, {(0, 2): 5.0, (0, 3): 4.5, (1, 2): 4.0})
    assert run(log_odds, [[0, 2], [1], [3]], [2, 3], {(2, 3)}) == [(2, 0)]
    assert run(log_odds, [[0, 3], [1, 2]], [2, 3], {(2, 3)}) == []  # this is optimal already
    assert run(log_odds, [[0, 2], [1], [3]], [2, 3], set()) == []  # no conflict


def test_a_worse_assignment_is_not_taken() -> None:
    log_odds = graph(4, {(0, 2): 5.0, (0, 3): 1.0, (1, 2): 0.5})
    assert run(log_odds, [[0, 2], [1], [3]], [2, 3], {(2, 3)}) == []  # 5 is more than 1 + 0.5


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 4), fresh=st.integers(2, 4))
def test_equals_the_best_of_all_assignments(seed: int, groups: int, fresh: int) -> None:
    """One known node per group; all fresh nodes conflict, and start where the strongest pair puts them."""
    rng = np.random.default_rng(seed)
    n = groups + fresh
    log_odds = np.round(rng.normal(size=(n, n)), 3)
    log_odds = np.triu(log_odds, 1) + np.triu(log_odds, 1).T
    log_odds[:groups, :groups] = log_odds[groups:, groups:] = -9.0
    newcomers = list(range(groups, n))
    start: list[list[int]] = [[own] for own in range(groups)]
    strongest = sorted((-log_odds[own, node], own, node) for own in range(groups) for node in newcomers)
    for value, own, node in strongest:  # as agglomeration does
        if value < 0 and len(start[own]) == 1 and not any(node in group for group in start):
            start[own].append(node)
    start += [[node] for node in newcomers if not any(node in group for group in start)]
    conflicts = {(a, b) for a in newcomers for b in newcomers if a < b}
    moved = run(log_odds, start, newcomers, conflicts)

    def total(assignment: dict[int, int]) -> float:
        return float(sum(log_odds[own, node] for node, own in assignment.items()))

    current = {node: group[0] for group in start[:groups] for node in group[1:]}
    places = [*range(groups), *(-1 for _ in newcomers)]
    best = max(
        total({node: own for node, own in zip(newcomers, chosen, strict=True) if own >= 0})
        for chosen in permutations(places, fresh)
    )
    if total(current) >= best - 1e-9:
        assert moved == []
    else:
        assert moved and all(current[node] == own for node, own in moved)
