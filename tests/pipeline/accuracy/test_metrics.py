from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, v_measure_score
from sklearn.metrics.cluster import contingency_matrix, pair_confusion_matrix

from pipeline.accuracy.metrics import agreement, churn, idf1, open_set, pairwise
from pipeline.association.matching import best_matching
from schemas.arrays import Ints


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


@st.composite
def groupings(draw: st.DrawFn) -> tuple[Ints, Ints, Ints, Ints]:
    """predicted, truth, unit, weight of up to 40 items, with arbitrary labels."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = draw(st.integers(1, 12))
    predicted, truth = rng.integers(-3, labels, n) * 1_000_003, rng.integers(0, labels, n)
    return predicted, truth, rng.integers(0, draw(st.integers(1, 3)), n), rng.integers(1, 9, n)


def all_pairs(predicted: Ints, truth: Ints, unit: Ints) -> list[tuple[bool, bool]]:
    """(one identity, one person) of all pairs of items of one unit."""
    pairs = [(i, j) for i, j in combinations(range(len(unit)), 2) if unit[i] == unit[j]]
    return [(bool(predicted[i] == predicted[j]), bool(truth[i] == truth[j])) for i, j in pairs]


@given(groupings())
def test_pairs_are_counted_within_units(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, unit, _ = items
    pairs = all_pairs(predicted, truth, unit)
    found = pairwise(predicted, truth, unit)
    assert found.true_positives == sum(a and b for a, b in pairs)
    assert (found.predicted, found.actual) == (sum(a for a, _ in pairs), sum(b for _, b in pairs))


@given(groupings())
def test_pairwise_equals_scikit_learn(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, _, _ = items
    (_, false_positive), (false_negative, both) = pair_confusion_matrix(truth, predicted)
    expected = 2 * both / (2 * both + false_positive + false_negative) if both + false_positive + false_negative else 1
    assert pairwise(predicted, truth, np.zeros_like(truth)).f1 == pytest.approx(expected)


@given(groupings())
def test_idf1_equals_the_assignment_of_the_full_table(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, unit, weight = items
    matched = 0
    for number in np.unique(unit):
        rows = unit == number
        names, row = np.unique(predicted[rows], return_inverse=True)
        people, column = np.unique(truth[rows], return_inverse=True)
        table = np.zeros((len(names), len(people)), dtype=np.int64)
        np.add.at(table, (row, column), weight[rows])
        matched += table[linear_sum_assignment(table, maximize=True)].sum()
    assert idf1(predicted, truth, unit, weight) == pytest.approx(matched / weight.sum())


@given(groupings())
def test_the_other_measures_are_those_of_their_papers(items: tuple[Ints, Ints, Ints, Ints]) -> None:
    predicted, truth, unit, weight = items
    n = len(unit)
    found = agreement(predicted, truth, unit, weight)
    same = [[(p == predicted) & (u == unit), (t == truth) & (u == unit)] for p, t, u in zip(*items[:3], strict=True)]
    precision = sum((a & b).sum() / a.sum() for a, b in same) / n
    recall = sum((a & b).sum() / b.sum() for a, b in same) / n
    assert found["b_cubed_precision"] == pytest.approx(precision)
    assert found["b_cubed_recall"] == pytest.approx(recall)
    assert found["b_cubed_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    one_unit = np.zeros(n, dtype=np.int64)
    found = agreement(predicted, truth, one_unit, weight)
    assert found["purity"] == pytest.approx(contingency_matrix(truth, predicted).max(axis=0).sum() / n)
    assert found["v_measure"] == pytest.approx(v_measure_score(truth, predicted))
    assert found["adjusted_rand"] == pytest.approx(adjusted_rand_score(truth, predicted))
    assert found["idf1"] == idf1(predicted, truth, one_unit, weight)
    assert found["pairwise_f1"] == pairwise(predicted, truth, one_unit).f1


def test_perfect_and_empty() -> None:
    truth, unit = ints(4, 4, 7, 7, 9), ints(0, 0, 0, 1, 1)
    assert set(agreement(truth * 10, truth, unit, ints(1, 2, 3, 4, 5)).values()) == {1.0}
    nothing = np.empty(0, dtype=np.int64)
    assert set(agreement(nothing, nothing, nothing, nothing).values()) == {1.0}


def test_an_identity_over_two_units_counts_in_each() -> None:
    """Errors between units do not count."""
    assert set(agreement(ints(1, 1, 1), ints(5, 5, 6), ints(0, 0, 1), ints(1, 1, 1)).values()) == {1.0}


def test_idf1_of_a_whole_city_is_fast() -> None:
    """One component of 20,000 identities and 10,000 people: a full table would take gigabytes and minutes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10_000, 200_000)
    predicted = np.where(rng.random(len(truth)) < 0.3, rng.integers(0, 20_000, len(truth)), 2 * truth)
    found = idf1(predicted, truth, np.zeros_like(truth), np.ones_like(truth))
    kept = float((predicted == 2 * truth).mean())
    assert kept <= found < kept + 0.01


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 8))
def test_the_best_matching_equals_the_assignment_of_the_table(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 50, (rows, columns)) * (rng.random((rows, columns)) < 0.6)
    left, right = np.nonzero(table)
    chosen = best_matching(left * 7, right - 3, table[left, right])
    assert len(set(left[chosen])) == len(set(right[chosen])) == chosen.sum()
    assert table[left, right][chosen].sum() == table[linear_sum_assignment(table, maximize=True)].sum()


def test_open_set() -> None:
    # In turn: A new, A seen, B falsely attached, B missed, A missed, C new, A mistaken (identity 4 holds no A).
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


def test_each_unit_has_its_own_history() -> None:
    found = open_set(ints(1, 1, 2, 2), ints(5, 5, 5, 6), ints(0, 1, 0, 1), ints(0, 1, 2, 3), begins=(0, 1))
    assert found.new.tolist() == [2, 1] and found.seen.tolist() == [0, 1] and found.missed.tolist() == [0, 1]
    nothing = np.empty(0, dtype=np.int64)
    found = open_set(nothing, nothing, nothing, nothing)
    assert (found.false_attach_rate, found.miss_rate) == (0.0, 0.0)


def test_churn() -> None:
    assert churn(ints(1, 2, 3, 4), ints(1, 2, 4, 3)) == 0.5
    assert churn(ints(), ints()) == 0.0
