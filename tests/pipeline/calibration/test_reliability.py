from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from pipeline.calibration.reliability import (
    KS_LIMIT,
    PSI_LIMIT,
    FalseMerges,
    Joins,
    Judgment,
    Profile,
    choose_threshold,
    drift,
    false_merges,
    judge,
    profile,
    reliability,
)
from schemas.errors import InputError


def truthful(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels that keep them."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.3, 1.5, n)
    return probability, rng.random(n) < probability


def test_a_truthful_probability_has_no_error_and_an_overconfident_one_has() -> None:
    probability, same = truthful(0, 50_000)
    found = judge(probability, same)
    assert found.shortlist.ece < 0.01
    assert found.middle.ece < 0.015
    assert found.middle.pairs < found.shortlist.pairs == 50_000
    odds = np.log(probability / (1 - probability))
    wrong = judge(1 / (1 + np.exp(-(odds + 1.0))), same)
    assert wrong.middle.ece > 0.1
    assert Judgment.model_validate_json(found.model_dump_json()) == found


def test_bins_have_equal_mass_and_hold_what_they_say() -> None:
    probability, same = truthful(1, 3_000)
    found = reliability(probability, same)
    assert found.counts == (200,) * 15
    rows = np.argsort(probability).reshape(15, 200)
    np.testing.assert_allclose(found.predicted, probability[rows].mean(axis=1))
    np.testing.assert_allclose(found.observed, same[rows].mean(axis=1))
    by_hand = np.abs(probability[rows].mean(axis=1) - same[rows].mean(axis=1)).mean()
    assert found.ece == pytest.approx(by_hand)


def test_equal_probabilities_share_a_bin() -> None:
    found = reliability(np.full(100, 0.3), np.arange(100) < 40)
    assert (found.counts, found.predicted, found.observed) == ((100,), (pytest.approx(0.3),), (0.4,))
    assert found.ece == pytest.approx(0.1)


def test_no_pairs_no_error() -> None:
    found = judge(np.array([0.01, 0.99]), np.array([False, True]))
    assert (found.middle.pairs, found.middle.ece) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60), st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs, random) -> None:
    shuffled = random.sample(pairs, len(pairs))
    one, other = (
        reliability(np.array([p for p, _ in rows], float), np.array([s for _, s in rows], bool))
        for rows in (pairs, shuffled)
    )
    assert one.counts == other.counts
    assert one.ece == pytest.approx(other.ece, abs=1e-12)
    assert 0 <= one.ece <= 1


# ---- thresholds


def clustered(seed: int, groups: int, rate: float = 0.05) -> Joins:
    """Joins of people of whom each has a rate of its own; 2 to 20 joins a person."""
    rng = np.random.default_rng(seed)
    many = rng.integers(2, 21, groups)
    group = np.repeat(np.arange(groups), many)
    own = rng.beta(0.5, 0.5 / rate - 0.5, groups)
    return Joins(1.0, rng.random(len(group)) < own[group], group)


def test_independent_joins_have_the_interval_of_clopper_and_pearson() -> None:
    wrong = np.arange(400) < 12
    found = false_merges(Joins(0.0, wrong, np.arange(400)))
    assert (found.joins, found.wrong, found.groups, found.rate) == (400, 12, 400, 0.03)
    np.testing.assert_allclose([found.low, found.high], beta.ppf([0.025, 0.975], [12, 13], [389, 388]), rtol=0.01)


def test_joins_of_few_people_say_less() -> None:
    joins = clustered(0, 200)
    alone = false_merges(Joins(1.0, joins.wrong, np.arange(len(joins.wrong))))
    together = false_merges(joins)
    assert together.rate == alone.rate
    assert together.high - together.low > 1.3 * (alone.high - alone.low)


def test_the_interval_holds_the_rate_as_often_as_it_says_and_agrees_with_a_bootstrap() -> None:
    found = [false_merges(clustered(seed, 150)) for seed in range(300)]
    held = np.mean([at.low <= 0.05 <= at.high for at in found])
    assert 0.92 < held <= 1
    shown = np.mean([at.fresh_low <= next_.rate <= at.fresh_high for at, next_ in pairwise(found)])
    assert 0.92 < shown <= 1
    joins, rng, rates = clustered(7, 400), np.random.default_rng(0), []
    wrong, many = np.bincount(joins.group, joins.wrong), np.bincount(joins.group)
    for _ in range(2_000):
        rows = rng.integers(0, 400, 400)
        rates.append(wrong[rows].sum() / many[rows].sum())
    ends = np.quantile(rates, [0.025, 0.975])
    at = false_merges(joins)
    assert at.high - at.low == pytest.approx(ends[1] - ends[0], rel=0.15)


@pytest.mark.parametrize("wrong, low, high", [(False, 0, 0.31), (True, 0.69, 1)])
def test_all_right_and_all_wrong_still_have_an_interval(wrong: bool, low: float, high: float) -> None:
    found = false_merges(Joins(0.0, np.full(500, wrong), np.repeat(np.arange(10), 50)))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


def test_no_joins_say_nothing() -> None:
    found = false_merges(Joins(0.0, np.zeros(0, bool), np.zeros(0, np.int64)))
    assert (found.rate, found.low, found.high, found.fresh_low, found.fresh_high) == (0, 0, 1, 0, 1)


def tried(seed: int) -> list[Joins]:
    """Joins with truthful log-odds, at thresholds from -2 to 5."""
    probability, same = truthful(seed, 40_000)
    odds = np.log(probability / (1 - probability))
    person = np.arange(40_000) // 4
    rows = [(at, odds >= at) for at in np.arange(-2, 5, 0.25).tolist()]
    return [Joins(at, ~same[made], person[made]) for at, made in rows]


def test_the_smallest_threshold_that_keeps_the_rate_holds_on_fresh_people() -> None:
    at = choose_threshold(tried(0), 0.05)
    assert at.rate <= 0.05
    before = max((joins for joins in tried(0) if joins.threshold < at.threshold), key=lambda joins: joins.threshold)
    assert before.wrong.mean() > 0.05
    assert choose_threshold(tried(0)[::-1], 0.05) == at
    assert choose_threshold(tried(0), 0.02).threshold > at.threshold
    fresh = [next(j for j in tried(seed) if j.threshold == at.threshold).wrong.mean() for seed in range(1, 9)]
    assert all(at.fresh_low <= rate <= at.fresh_high for rate in fresh)
    assert at.low <= np.mean(fresh) <= at.high
    assert FalseMerges.model_validate_json(at.model_dump_json()) == at


def test_a_rate_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(InputError, match="the least is 50"):
        choose_threshold([Joins(0.0, np.array([True, False]), np.array([0, 1]))], 0.1)
    with pytest.raises(InputError, match="none makes any join"):
        choose_threshold([], 0.1)


# ---- drift


@pytest.mark.parametrize("n", [30, 300, 30_000])
def test_the_same_data_seldom_drift(n: int) -> None:
    before = profile(np.random.default_rng(0).normal(0.6, 0.1, 5_000))
    warned = [drift(before, np.random.default_rng([1, seed]).normal(0.6, 0.1, n)).drifted for seed in range(100)]
    assert np.mean(warned) <= 0.05


@pytest.mark.parametrize("center, width", [(0.66, 0.1), (0.54, 0.1), (0.6, 0.2)])
def test_other_data_drift(center: float, width: float) -> None:
    before = profile(np.random.default_rng(0).normal(0.6, 0.1, 5_000))
    found = drift(before, np.random.default_rng(1).normal(center, width, 2_000))
    assert found.drifted
    assert (found.psi_limit, found.ks_limit, found.count) == (PSI_LIMIT, KS_LIMIT, 2_000)
    assert Profile.model_validate_json(before.model_dump_json()) == before


def test_a_shift_of_the_whole_is_a_distance_of_one() -> None:
    before = profile(np.arange(1000.0))
    found = drift(before, np.arange(1000.0) + 5_000)
    assert found.ks == pytest.approx(0.9, abs=0.01)  # up to the last decile
    assert drift(before, np.arange(1000.0)).psi == pytest.approx(0, abs=1e-9)


def test_ties_and_nothing_new_are_no_drift() -> None:
    constant = profile(np.full(100, 0.5))
    assert not drift(constant, np.full(1000, 0.5)).drifted
    assert drift(constant, np.full(1000, 0.7)).drifted
    assert not drift(constant, np.empty(0)).drifted
