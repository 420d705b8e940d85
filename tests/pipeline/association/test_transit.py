import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.association.transit import FLOOR, KINDS, MOST, SHORTEST_S, bind, prior
from schemas.calibration import TransitTimes

CHILDREN = ("d1/s1", "d1/s2", "d1/s3")
HORIZON_S = 3600.0
BEFORE = bind(prior(HORIZON_S), CHILDREN)


def one_way(gap_s: list[float], way_s: float, *, right: int = 1, model=BEFORE) -> np.ndarray:
    """Log-odds of these gaps between child 0 and child `right`."""
    n = len(gap_s)
    return model.log_odds(np.zeros(n, np.int64), np.full(n, right), np.full(n, way_s), np.array(gap_s))


def test_before_anything_is_learned_a_walk_speaks_for_and_an_hour_against() -> None:
    walk, minutes, hour = one_way([70.0, 600.0, 3500.0], 60.0)
    assert walk > 2
    assert walk > minutes > hour
    assert hour < -2
    np.testing.assert_allclose(one_way([70.0, 600.0, 3500.0], np.nan), 0, atol=1e-9)  # the way is unknown
    np.testing.assert_allclose(one_way([70.0, 600.0, 3500.0], 60.0, right=0), 0, atol=1e-9)  # back where one was


def test_a_longer_way_moves_the_usual_time() -> None:
    gaps = [20.0, 400.0]
    assert np.argmax(one_way(gaps, 15.0)) == 0
    assert np.argmax(one_way(gaps, 300.0)) == 1


def test_no_way_is_shorter_than_a_view() -> None:
    gaps = [1.0, 6.0, 300.0]
    np.testing.assert_array_equal(one_way(gaps, 0.0), one_way(gaps, SHORTEST_S))
    assert (one_way(gaps, 0.0) != one_way(gaps, 2 * SHORTEST_S)).any()


def test_a_snapshot_survives_json_and_its_digest_says_what_is_in_it() -> None:
    model = prior(HORIZON_S)
    again = TransitTimes.model_validate_json(model.model_dump_json())
    assert again == model
    assert again.digest() == model.digest()
    assert prior(HORIZON_S + 1).digest() != model.digest()
    assert len(model.same) == len(model.strangers) == len(model.ways) == KINDS
    np.testing.assert_allclose([sum(row) for row in (*model.same, *model.strangers)], 1, atol=1e-6)


GAPS = arrays(np.float64, 20, elements=st.floats(-1e9, 1e9))
TIMES = arrays(np.float64, 20, elements=st.one_of(st.just(np.nan), st.floats(0, 1e6)))
ENDS = arrays(np.int64, 20, elements=st.integers(0, 2))


@given(ENDS, ENDS, TIMES, GAPS)
def test_any_pair_gets_bounded_log_odds_whichever_end_comes_first(left, right, way_s, gap_s) -> None:
    found = BEFORE.log_odds(left, right, way_s, gap_s)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= MOST).all()
    assert (found >= np.log(FLOOR) - 1e-9).all()
    np.testing.assert_array_equal(found, BEFORE.log_odds(right, left, way_s, gap_s))


@given(st.floats(SHORTEST_S, 500), st.lists(st.floats(1.5, 1e4), min_size=2, max_size=10))
def test_once_the_way_is_walked_a_longer_gap_never_speaks_more_for_one_person(way_s: float, times: list[float]) -> None:
    found = one_way([way_s * time for time in sorted(times)], way_s)
    assert (np.diff(found) <= 1e-6).all()


@settings(deadline=None)
@given(st.integers(0, 50_000))
def test_a_pair_does_not_depend_on_those_beside_it(n: int) -> None:
    rng = np.random.default_rng(n)
    columns = rng.integers(0, 3, n), rng.integers(0, 3, n), rng.uniform(5, 500, n), rng.uniform(-10, 4000, n)
    whole = BEFORE.log_odds(*columns)
    assert whole.shape == (n,)
    rows = rng.permutation(n)[:100]
    np.testing.assert_array_equal(whole[rows], BEFORE.log_odds(*(column[rows] for column in columns)))
