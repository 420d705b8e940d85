from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, v_measure_score
from sklearn.metrics.cluster import contingency_matrix, pair_confusion_matrix

from pipeline.accuracy import metrics
from pipeline.accuracy.metrics import (
    agreement,
    b_cubed,
    churn,
    commonest,
    episodes,
    forbidden_pairs,
    idf1,
    open_set,
    pairwise,
    purity,
)
from pipeline.association.matching import best_matching
from schemas.arrays import Ints


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


@st.composite
def groupings(draw: st.DrawFn) -> tuple[Ints, Ints, Ints, Ints]:
    """predicted, truth, unit, weight of up to 40 items, with labels that are no small numbers."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = draw(st.integers(1, 12))
    predicted, truth = rng.integers(-3, labels, n) * 1_000_003, rng.integers(0, labels, n)
    return predicted, truth, rng.integers(0, draw(st.integers(1, 3)), n), rng.integers(1, 9, n)


def one_by_one(predicted: Ints, truth: Ints, unit: Ints) -> list[tuple[bool, bool]]:
    """(predicted the same, truly the same) of all pairs of one unit."""
    pairs = [(i, j) for i, j in combinations(range(len(unit)), 2) if unit[i] == unit[j]]
    return [(bool(predicted[i] == predicted[j]), bool(truth[i] == truth[j])) for i, j in pairs]


@given(groupings())
def test_pairs_are_counted_within_units(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, unit, _ = items
    pairs = one_by_one(predicted, truth, unit)
    found = pairwise(predicted, truth, unit)
    assert found.true_positives == sum(a and b for a, b in pairs)
    assert (found.predicted, found.actual) == (sum(a for a, _ in pairs), sum(b for _, b in pairs))


@given(groupings())
def test_pairwise_is_scikit_learns(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, _, _ = items
    (_, false_positive), (false_negative, both) = pair_confusion_matrix(truth, predicted)
    expected = 2 * both / (2 * both + false_positive + false_negative) if both + false_positive + false_negative else 1
    assert pairwise(predicted, truth, np.zeros_like(truth)).f1 == pytest.approx(expected)


@given(groupings())
def test_idf1_is_that_of_the_whole_table(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, unit, weight = items
    matched = 0
    for where in np.unique(unit):
        rows = unit == where
        names, row = np.unique(predicted[rows], return_inverse=True)
        people, column = np.unique(truth[rows], return_inverse=True)
        table = np.zeros((len(names), len(people)), dtype=np.int64)
        np.add.at(table, (row, column), weight[rows])
        matched += table[linear_sum_assignment(table, maximize=True)].sum()
    assert idf1(predicted, truth, unit, weight) == pytest.approx(matched / weight.sum())


@given(groupings())
def test_the_rest_is_what_the_papers_say(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, unit, weight = items
    n = len(unit)
    same = [[(p == predicted) & (u == unit), (t == truth) & (u == unit)] for p, t, u in zip(*items[:3], strict=True)]
    cubed = b_cubed(predicted, truth, unit)
    assert cubed.precision == pytest.approx(sum((a & b).sum() / a.sum() for a, b in same) / n)
    assert cubed.recall == pytest.approx(sum((a & b).sum() / b.sum() for a, b in same) / n)
    alone = np.zeros(n, dtype=np.int64)
    assert purity(predicted, truth, alone) == pytest.approx(contingency_matrix(truth, predicted).max(axis=0).sum() / n)
    found = agreement(predicted, truth, alone, weight)
    assert found["v_measure"] == pytest.approx(v_measure_score(truth, predicted))
    assert found["adjusted_rand"] == pytest.approx(adjusted_rand_score(truth, predicted))
    assert found["idf1"] == idf1(predicted, truth, alone, weight)
    assert found["pairwise_f1"] == pairwise(predicted, truth, alone).f1
    assert found["b_cubed_f1"] == b_cubed(predicted, truth, alone).f1


def test_perfect_and_empty() -> None:
    truth, unit = ints(4, 4, 7, 7, 9), ints(0, 0, 0, 1, 1)
    assert set(agreement(truth * 10, truth, unit, ints(1, 2, 3, 4, 5)).values()) == {1.0}
    nobody = np.empty(0, dtype=np.int64)
    assert set(agreement(nobody, nobody, nobody, nobody).values()) == {1.0}


def test_an_identity_over_two_units_is_one_in_each() -> None:
    """Nothing is wrong that no unit could see."""
    assert set(agreement(ints(1, 1, 1), ints(5, 5, 6), ints(0, 0, 1), ints(1, 1, 1)).values()) == {1.0}


def test_idf1_of_a_whole_city_is_quick() -> None:
    """One component of 20,000 identities and 10,000 people: a table would take gigabytes and minutes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10_000, 200_000)
    predicted = np.where(rng.random(len(truth)) < 0.3, rng.integers(0, 20_000, len(truth)), 2 * truth)
    found = idf1(predicted, truth, np.zeros_like(truth), np.ones_like(truth))
    kept = float((predicted == 2 * truth).mean())
    assert kept <= found < kept + 0.01


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 8))
def test_the_best_matching_is_that_of_the_table(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 50, (rows, columns)) * (rng.random((rows, columns)) < 0.6)
    left, right = np.nonzero(table)
    chosen = best_matching(left * 7, right - 3, table[left, right])
    assert len(set(left[chosen])) == len(set(right[chosen])) == chosen.sum()
    assert table[left, right][chosen].sum() == table[linear_sum_assignment(table, maximize=True)].sum()


def test_open_set() -> None:
    #         A new   A again  B false  B other  A missed  C new   A mistaken (B's identity 1 holds A; 3 does not)
    predicted = ints(1, 1, 1, 2, 3, 4, 4)
    truth = ints(10, 10, 11, 11, 10, 12, 10)
    shuffled = np.array([3, 0, 6, 1, 5, 2, 4])
    found = open_set(
        predicted[shuffled], truth[shuffled], np.zeros(7, np.int64), np.arange(7)[shuffled], begins=(0, 1, 3)
    )
    assert found.new.tolist() == [1, 1, 1]
    assert found.false_attached.tolist() == [0, 1, 0]
    assert found.seen.tolist() == [0, 3, 1]
    assert found.missed.tolist() == [0, 2, 0]
    assert found.mistaken.tolist() == [0, 0, 1]
    assert (found.false_attach_rate, found.miss_rate, found.mistaken_rate) == (1 / 3, 2 / 4, 1 / 4)


def test_units_have_histories_of_their_own() -> None:
    found = open_set(ints(1, 1, 2, 2), ints(5, 5, 5, 6), ints(0, 1, 0, 1), ints(0, 1, 2, 3), begins=(0, 1))
    assert found.new.tolist() == [2, 1] and found.seen.tolist() == [0, 1] and found.missed.tolist() == [0, 1]
    nobody = np.empty(0, dtype=np.int64)
    nothing = open_set(nobody, nobody, nobody, nobody)
    assert (nothing.false_attach_rate, nothing.miss_rate) == (0.0, 0.0)


def test_churn_and_the_commonest() -> None:
    assert churn(ints(1, 2, 3, 4), ints(1, 2, 4, 3)) == 0.5
    assert churn(ints(), ints()) == 0.0
    found = commonest(ints(2, 0, 0, 2, 2, 0), ints(8, 5, 4, 9, 9, 4), ints(5, 3, 2, 1, 3, 1), 4)
    assert found.tolist() == [4, -1, 8, -1]
    assert commonest(ints(), ints(), ints(), 2).tolist() == [-1, -1]


@pytest.mark.parametrize("block", [3, 2_000_000])
def test_forbidden_pairs_are_those_of_all_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_PAIRS", block)
    rng = np.random.default_rng(block)
    n, cameras = 300, 6
    slack = rng.uniform(-2, 40, (cameras, cameras))
    slack = (slack + slack.T) / 2
    slack[0, 1] = slack[1, 0] = -np.inf
    np.fill_diagonal(slack, 0.0)
    group, camera, start = rng.integers(0, 20, n) - 5, rng.integers(0, cameras, n), rng.integers(0, 900, n)
    end = start + rng.integers(0, 60, n)
    expected = 0
    for i, j in combinations(range(n), 2):
        gap = max(start[i], start[j]) - min(end[i], end[j])
        expected += bool(group[i] == group[j] and gap < slack[camera[i], camera[j]])
    assert expected > 100
    assert forbidden_pairs(group, camera, start, end, lambda a, b: slack[a, b], slack.max()) == expected
    assert forbidden_pairs(ints(), ints(), ints(), ints(), lambda a, b: slack[a, b], 40.0) == 0


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 60), st.integers(0, 15)), max_size=40),
    horizon=st.integers(0, 20),
)
def test_episodes_end_where_nothing_was_seen_for_longer_than_the_horizon(
    rows: list[tuple[int, int, int, int]], horizon: int
) -> None:
    unit, group, start, length = (
        (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
        if rows
        else (np.empty((4, 0), np.int64))
    )
    found = episodes(group, unit, start, start + length, horizon)
    for i in range(len(rows)):
        for j in range(len(rows)):
            its = (unit == unit[i]) & (group == group[i])
            if not its[j]:
                assert found[i] != found[j]
                continue
            first, last = sorted((start[i], start[j]))
            between = its & (start <= last)
            # Cut where a moment after the first start lies further than the horizon behind all that ended so far.
            cut = any(
                first < at <= last and at - (start + length)[between & (start < at)].max() > horizon
                for at in start[between].tolist()
            )
            assert (found[i] != found[j]) == cut
