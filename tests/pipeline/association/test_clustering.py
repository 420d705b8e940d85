"""Average link: equals scipy's on complete graphs, and keeps its laws on sparse ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from pipeline.association.clustering import Clusters, average_link
from schemas.arrays import Bools, Floats, Ints


def run(
    log_odds: Floats,
    threshold: float,
    known: Bools,
    small: int = 1000,
    forbidden: frozenset[tuple[int, int]] = frozenset(),
    scored: set[tuple[int, int]] | None = None,
) -> Clusters:
    """known: (n, n) the pairs scored at the start; the others are scored from `log_odds` (n, n) on demand."""

    def score(a: Ints, b: Ints) -> Floats:
        if scored is not None:
            scored.update(zip(a.tolist(), b.tolist(), strict=True))
        values: Floats = log_odds[a, b]
        return values

    left, right = np.nonzero(np.triu(known, 1))
    return average_link(
        len(log_odds),
        left,
        right,
        log_odds[left, right],
        threshold=threshold,
        review=threshold - 1,
        small=small,
        score=score,
        impossible=lambda a, b: any((min(i, j), max(i, j)) in forbidden for i in a for j in b),
    )


def matrix(seed: int, n: int) -> Floats:
    upper: Floats = np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1)
    return upper + upper.T


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 14), threshold=st.floats(-1, 1))
def test_complete_graph_agrees_with_scipy(seed: int, n: int, threshold: float) -> None:
    log_odds = matrix(seed, n)
    ours = run(log_odds, threshold, np.ones((n, n), bool)).groups
    condensed = (5 - log_odds)[np.triu_indices(n, 1)]
    labels = fcluster(linkage(condensed, "average"), 5 - threshold, "distance")
    theirs = sorted([int(i) for i in np.flatnonzero(labels == label)] for label in np.unique(labels))
    assert ours == theirs


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 14), share=st.floats(0.1, 0.9), small=st.integers(1, 8))
def test_sparse_graph_keeps_its_laws(seed: int, n: int, share: float, small: int) -> None:
    rng = np.random.default_rng(seed)
    log_odds = matrix(seed, n)
    known = np.triu(rng.random((n, n)) < share, 1)
    forbidden = frozenset((i, j) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.2)
    scored = {(int(i), int(j)) for i, j in zip(*np.nonzero(known), strict=True)}
    found = run(log_odds, 0.0, known, small, forbidden, scored)
    assert sorted(node for group in found.groups for node in group) == list(range(n))  # every node once
    assert len(found.joins) == n - len(found.groups)  # a tree of joins explains each group
    for group in found.groups:
        assert not any((i, j) in forbidden for i in group for j in group)
    group_of = {node: number for number, group in enumerate(found.groups) for node in group}
    assert all(group_of[i] == group_of[j] for i, j in found.joins)
    assert all(group_of[i] != group_of[j] for i, j in found.reviews)
    assert scored.issuperset(found.joins) and scored.issuperset(found.reviews)  # decisions are about scored pairs only


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10_000), st.integers(2, 14), st.floats(0.1, 1), st.floats(-1, 1), st.floats(0, 2))
def test_a_higher_threshold_only_splits_groups(seed: int, n: int, share: float, low: float, more: float) -> None:
    rng = np.random.default_rng(seed)
    log_odds, known = matrix(seed, n), rng.random((n, n)) < share
    forbidden = np.argwhere(np.triu(rng.random((n, n)) < 0.1, 1)).tolist()
    apart = frozenset((i, j) for i, j in forbidden)
    loose, strict = (run(log_odds, at, known, forbidden=apart).groups for at in (low, low + more))
    assert all(any(set(group) <= set(other) for other in loose) for group in strict)


@pytest.mark.parametrize(
    "between, small, groups, added",
    [
        (5.0, 1000, [[0, 1, 2, 3], [4]], {(0, 2), (0, 3), (1, 3)}),  # scored: (5 + 9 + 9 + 9) / 4
        (5.0, 1, [[0, 1], [2, 3], [4]], set()),  # counted: (5 - 5 + 6 - 5) / 4
        (1.0, 1000, [[0, 1], [2, 3], [4]], set()),  # their only scored pair is below the threshold
    ],
)
def test_unscored_pairs(between: float, small: int, groups: list[list[int]], added: set[tuple[int, int]]) -> None:
    # 0-1 and 2-3 are strong, only 1-2 is scored between them, and 4 is a weak candidate of 1 and 2.
    log_odds = np.full((5, 5), 9.0)
    known = np.zeros((5, 5), bool)
    for pair, value in {(0, 1): 6.0, (2, 3): 6.0, (1, 2): between, (1, 4): -5.0, (2, 4): -5.0}.items():
        log_odds[pair], known[pair] = value, True
    scored: set[tuple[int, int]] = set()
    assert run(log_odds, 4.0, known, small, scored=scored).groups == groups
    assert scored == added


@pytest.mark.parametrize("value, reviews", [(-0.5, [(0, 1)]), (-1.5, [])])
def test_review_band(value: float, reviews: list[tuple[int, int]]) -> None:
    log_odds = np.array([[0, value], [value, 0]])
    assert run(log_odds, 0.0, np.ones((2, 2), bool)).reviews == reviews
