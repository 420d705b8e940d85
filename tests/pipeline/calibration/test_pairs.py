from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from pipeline.association.log_odds import appearance_log_odds, distance_at, few_crops_share, log_odds
from pipeline.calibration.pairs import MIN_PAIRS, fit_pairs
from pipeline.calibration.reliability import judge
from reid_core.evaluation.verification import logistic
from schemas.arrays import Floats
from schemas.calibration import PairTerms, straight_line
from tests.helpers.simulated_pairs import Pairs, simulated_pairs


def concatenated(*seeds: int) -> Pairs:
    parts = [simulated_pairs(seed) for seed in seeds]
    return Pairs(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Pairs)))


def fit(pairs: Pairs) -> PairTerms:
    found = fit_pairs(pairs.distance, pairs.transit, pairs.left_weight, pairs.right_weight, pairs.same)
    assert found is not None
    return found


def one_weight(pairs: Pairs) -> Pairs:
    """The pairs as if all prototypes had the same weight."""
    weight = np.full(len(pairs.same), 5.0)
    return replace(pairs, left_weight=weight, right_weight=weight)


def probabilities(terms: PairTerms, pairs: Pairs) -> Floats:
    odds = log_odds(terms, pairs.distance, pairs.transit, pairs.left_weight, pairs.right_weight)
    return np.asarray(expit(odds), np.float64)


@pytest.fixture(scope="module")
def learned() -> Pairs:
    return concatenated(1, 2)


@pytest.fixture(scope="module")
def fresh() -> Pairs:
    return concatenated(3, 4)


@pytest.fixture(scope="module")
def fitted(learned: Pairs) -> PairTerms:
    return fit(learned)


def test_probabilities_hold_on_fresh_people(fitted: PairTerms, fresh: Pairs) -> None:
    assert 0.02 < fresh.same.mean() < 0.3  # most shortlisted pairs are strangers
    found = judge(probabilities(fitted, fresh), fresh.same)
    assert found.middle.pairs > 4_000
    assert found.shortlist.ece < 0.01
    assert found.middle.ece < 0.025
    assert fitted.transit == pytest.approx(1, abs=0.1)  # the simulated likelihood ratio is exact


def test_few_and_many_crops_are_told_apart(fitted: PairTerms, learned: Pairs, fresh: Pairs) -> None:
    alike = fit(one_weight(learned))
    share = few_crops_share(fresh.left_weight, fresh.right_weight)
    for rows in (share < np.quantile(share, 0.2), share > np.quantile(share, 0.8)):
        separate, together = (
            judge(probability[rows], fresh.same[rows]).middle.ece
            for probability in (probabilities(fitted, fresh), probabilities(alike, one_weight(fresh)))
        )
        assert separate < 0.05
        assert separate < 0.6 * together


def test_a_bend_is_better_than_a_straight_line(learned: Pairs, fresh: Pairs) -> None:
    learned, fresh = (replace(one_weight(pairs), transit=np.zeros(len(pairs.same))) for pairs in (learned, fresh))
    slope, intercept = logistic(learned.distance, learned.same)
    losses = [
        np.mean(-np.log(np.where(fresh.same, p, 1 - p)))
        for p in (probabilities(terms, fresh) for terms in (fit(learned), straight_line(slope, intercept)))
    ]
    assert losses[0] < losses[1]


@given(st.floats(0, 2), st.floats(0, 2), st.floats(-4, 4), st.floats(-4, 4), st.floats(0.05, 1e4), st.floats(0.05, 1e4))
def test_monotone_and_symmetric(
    fitted: PairTerms, near: float, far: float, less: float, more: float, left: float, right: float
) -> None:
    near, far = sorted((near, far))
    less, more = sorted((less, more))

    def at(distance: float, transit: float, a: float, b: float) -> float:
        return float(log_odds(fitted, *(np.array([value]) for value in (distance, transit, a, b)))[0])

    assert at(near, 0, left, right) >= at(far, 0, left, right)
    assert at(near, more, left, right) >= at(near, less, left, right)
    assert at(near, more, left, right) == at(near, more, right, left)


def test_survives_json(fitted: PairTerms, fresh: Pairs) -> None:
    again = PairTerms.model_validate_json(fitted.model_dump_json())
    assert again == fitted
    np.testing.assert_array_equal(probabilities(again, fresh), probabilities(fitted, fresh))


def test_too_few_pairs_of_either_kind_are_not_fitted(learned: Pairs) -> None:
    same, apart = np.flatnonzero(learned.same), np.flatnonzero(~learned.same)
    for rows in (np.r_[same[: MIN_PAIRS - 1], apart], np.r_[same, apart[: MIN_PAIRS - 1]]):
        few = Pairs(*(getattr(learned, f.name)[rows] for f in fields(Pairs)))
        assert fit_pairs(few.distance, few.transit, few.left_weight, few.right_weight, few.same) is None


def test_without_times_transit_has_weight_1(learned: Pairs) -> None:
    untimed = replace(learned, transit=np.zeros(len(learned.transit)))
    assert fit(untimed).transit == 1


def test_one_weight_for_all_gives_one_line(learned: Pairs) -> None:
    found = fit(one_weight(learned))
    np.testing.assert_allclose(found.many_crops.slopes, found.few_crops.slopes, rtol=0.1)


def test_separable_pairs_give_finite_log_odds() -> None:
    distance = np.repeat([0.1, 1.0], 50)
    one = np.ones(100)
    found = fit_pairs(distance, 0 * one, one, one, distance < 0.5)
    assert found is not None
    odds = log_odds(found, np.array([0.1, 1.0]), np.zeros(2), np.ones(2), np.ones(2))
    assert odds[0] > 2
    assert odds[1] < -2
    assert np.abs(odds).max() < 50


@given(distance=st.floats(0, 2), left=st.floats(0.1, 50), right=st.floats(0.1, 50))
def test_distance_at_inverts_the_log_odds(fitted: PairTerms, distance: float, left: float, right: float) -> None:
    odds = appearance_log_odds(fitted, distance, left, right)
    assert distance_at(fitted, odds, left, right) == pytest.approx(distance, abs=1e-9)


def test_a_straight_line() -> None:
    assert appearance_log_odds(straight_line(4, 3), 0.5) == 1
    assert distance_at(straight_line(4, 3), 1) == 0.5
