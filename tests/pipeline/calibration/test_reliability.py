from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from pipeline.calibration.reliability import Joins, false_merges, judge, reliability
from schemas.arrays import Bools, Floats
from schemas.calibration import FalseMerges, Judgment


def calibrated(seed: int, n: int) -> tuple[Floats, Bools]:
    """Probabilities, and labels drawn with them."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.3, 1.5, n)
    return probability, rng.random(n) < probability


def test_calibrated_probabilities_have_no_error_and_shifted_ones_have() -> None:
    probability, same = calibrated(0, 50_000)
    found = judge(probability, same)
    assert found.shortlist.ece < 0.01
    assert found.middle.ece < 0.015
    assert found.middle.pairs < found.shortlist.pairs == 50_000
    odds = np.log(probability / (1 - probability))
    wrong = judge(1 / (1 + np.exp(-(odds + 1.0))), same)
    assert wrong.middle.ece > 0.1
    assert Judgment.model_validate_json(found.model_dump_json()) == found


def test_bins_have_equal_mass() -> None:
    probability, same = calibrated(1, 3_000)
    found = reliability(probability, same)
    assert found.counts == (200,) * 15
    rows = np.argsort(probability).reshape(15, 200)
    np.testing.assert_allclose(found.predicted, probability[rows].mean(axis=1))
    np.testing.assert_allclose(found.observed, same[rows].mean(axis=1))
    by_hand = np.abs(probability[rows].mean(axis=1) - same[rows].mean(axis=1)).mean()
    assert found.ece == pytest.approx(by_hand)


def test_equal_probabilities_share_a_bin() -> None:
    found = reliability(np.full(100, 0.3), np.arange(100) < 40)
    assert (found.counts, found.observed) == ((100,), (0.4,))
    assert found.predicted == pytest.approx((0.3,))
    assert found.ece == pytest.approx(0.1)


def test_no_pairs_no_error() -> None:
    found = judge(np.array([0.01, 0.99]), np.array([False, True]))
    assert (found.middle.pairs, found.middle.ece) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs: list[tuple[float, bool]], random: Random) -> None:
    shuffled = random.sample(pairs, len(pairs))
    one, other = (
        reliability(np.array([p for p, _ in rows], float), np.array([s for _, s in rows], bool))
        for rows in (pairs, shuffled)
    )
    assert one.counts == other.counts
    assert one.ece == pytest.approx(other.ece, abs=1e-12)
    assert 0 <= one.ece <= 1


# ---- false merges


def clustered(seed: int, groups: int, rate: float = 0.05) -> Joins:
    """Joins of people with a rate of their own each; 2 to 20 joins a person."""
    rng = np.random.default_rng(seed)
    count = rng.integers(2, 21, groups)
    group = np.repeat(np.arange(groups), count)
    rates = rng.beta(0.5, 0.5 / rate - 0.5, groups)
    return Joins(1.0, rng.random(len(group)) < rates[group], group)


def test_independent_joins_have_the_clopper_pearson_interval() -> None:
    wrong = np.arange(400) < 12
    found = false_merges(Joins(0.0, wrong, np.arange(400)))
    assert (found.joins, found.wrong, found.groups, found.rate) == (400, 12, 400, 0.03)
    np.testing.assert_allclose([found.low, found.high], beta.ppf([0.025, 0.975], [12, 13], [389, 388]), rtol=0.01)


def test_joins_of_few_people_have_a_wider_interval() -> None:
    joins = clustered(0, 200)
    alone = false_merges(Joins(1.0, joins.wrong, np.arange(len(joins.wrong))))
    together = false_merges(joins)
    assert together.rate == alone.rate
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_the_interval_has_its_coverage_and_agrees_with_a_bootstrap() -> None:
    found = [false_merges(clustered(seed, 150)) for seed in range(300)]
    coverage = np.mean([one.low <= 0.05 <= one.high for one in found])
    assert 0.92 < coverage <= 1
    fresh_coverage = np.mean([one.fresh_low <= fresh.rate <= one.fresh_high for one, fresh in pairwise(found)])
    assert 0.92 < fresh_coverage <= 1
    joins, rng, rates = clustered(7, 400), np.random.default_rng(0), []
    wrong, count = np.bincount(joins.group, joins.wrong), np.bincount(joins.group)
    for _ in range(2_000):
        rows = rng.integers(0, 400, 400)
        rates.append(wrong[rows].sum() / count[rows].sum())
    ends = np.quantile(rates, [0.025, 0.975])
    whole = false_merges(joins)
    assert FalseMerges.model_validate_json(whole.model_dump_json()) == whole
    assert whole.high - whole.low == pytest.approx(ends[1] - ends[0], rel=0.15)


@pytest.mark.parametrize("wrong, low, high", [(False, 0, 0.31), (True, 0.69, 1)])
def test_all_right_and_all_wrong_have_an_interval(wrong: bool, low: float, high: float) -> None:
    found = false_merges(Joins(0.0, np.full(500, wrong), np.repeat(np.arange(10), 50)))
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.005)


def test_without_joins_the_interval_is_everything() -> None:
    found = false_merges(Joins(0.0, np.zeros(0, bool), np.zeros(0, np.int64)))
    assert (found.rate, found.low, found.high, found.fresh_low, found.fresh_high) == (0, 0, 1, 0, 1)
