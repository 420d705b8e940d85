import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.association.transit import (
    CLIP,
    KINDS,
    MIN_EXPECTED_S,
    OUTLIER_SHARE,
    UnitTransit,
    prior_times,
    unit_transit,
)
from schemas.arrays import Floats, Ints
from schemas.calibration import TransitTimes

CHILDREN = ("d1/s1", "d1/s2", "d1/s3")
LOOKBACK_S = 3600.0
PRIOR = unit_transit(prior_times(LOOKBACK_S), CHILDREN)


def one_route(gap_s: list[float], expected_s: float, *, right: int = 1, model: UnitTransit = PRIOR) -> Floats:
    """Log-odds of these gaps between child 0 and child `right`."""
    n = len(gap_s)
    return model.log_odds(np.zeros(n, np.int64), np.full(n, right), np.full(n, expected_s), np.array(gap_s))


def test_under_the_prior_a_walk_raises_the_log_odds_and_an_hour_lowers_them() -> None:
    walk, minutes, hour = one_route([70.0, 600.0, 3500.0], 60.0)
    assert walk > 2
    assert walk > minutes > hour
    assert hour < -2
    np.testing.assert_allclose(one_route([70.0, 600.0, 3500.0], np.nan), 0, atol=1e-9)  # unknown time
    np.testing.assert_allclose(
        one_route([70.0, 600.0, 3500.0], 60.0, right=0), 0, atol=1e-9
    )  # return to the same child


def test_a_longer_route_has_a_longer_usual_time() -> None:
    gaps = [20.0, 400.0]
    assert np.argmax(one_route(gaps, 15.0)) == 0
    assert np.argmax(one_route(gaps, 300.0)) == 1


def test_expected_times_have_a_lower_limit() -> None:
    gaps = [1.0, 6.0, 300.0]
    np.testing.assert_array_equal(one_route(gaps, 0.0), one_route(gaps, MIN_EXPECTED_S))
    assert (one_route(gaps, 0.0) != one_route(gaps, 2 * MIN_EXPECTED_S)).any()


def test_times_survive_json_and_their_digest_depends_on_all_of_them() -> None:
    model = prior_times(LOOKBACK_S)
    again = TransitTimes.model_validate_json(model.model_dump_json())
    assert again == model
    assert again.digest() == model.digest()
    assert prior_times(LOOKBACK_S + 1).digest() != model.digest()
    assert len(model.same) == len(model.strangers) == len(model.kind_log_ratios) == KINDS
    np.testing.assert_allclose([sum(row) for row in (*model.same, *model.strangers)], 1, atol=1e-6)


GAPS = arrays(np.float64, 20, elements=st.floats(-1e9, 1e9))
TIMES = arrays(np.float64, 20, elements=st.one_of(st.just(np.nan), st.floats(0, 1e6)))
ENDS = arrays(np.int64, 20, elements=st.integers(0, 2))


@given(ENDS, ENDS, TIMES, GAPS)
def test_log_odds_are_bounded_and_symmetric(left: Ints, right: Ints, expected_s: Floats, gap_s: Floats) -> None:
    found = PRIOR.log_odds(left, right, expected_s, gap_s)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= CLIP).all()
    assert (found >= np.log(OUTLIER_SHARE) - 1e-9).all()
    np.testing.assert_array_equal(found, PRIOR.log_odds(right, left, expected_s, gap_s))


@given(st.floats(MIN_EXPECTED_S, 500), st.lists(st.floats(1.5, 1e4), min_size=2, max_size=10))
def test_beyond_the_expected_time_log_odds_fall_with_the_gap(expected_s: float, ratios: list[float]) -> None:
    found = one_route([expected_s * ratio for ratio in sorted(ratios)], expected_s)
    assert (np.diff(found) <= 1e-6).all()


@settings(deadline=None)
@given(st.integers(0, 50_000))
def test_a_pair_does_not_depend_on_the_others(n: int) -> None:
    rng = np.random.default_rng(n)
    left, right = rng.integers(0, 3, n), rng.integers(0, 3, n)
    expected_s, gap_s = rng.uniform(5, 500, n), rng.uniform(-10, 4000, n)
    whole = PRIOR.log_odds(left, right, expected_s, gap_s)
    assert whole.shape == (n,)
    rows = rng.permutation(n)[:100]
    part = PRIOR.log_odds(left[rows], right[rows], expected_s[rows], gap_s[rows])
    np.testing.assert_array_equal(whole[rows], part)
