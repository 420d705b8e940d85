import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.clock_skew import (
    FEWEST,
    ClockSkews,
    Differences,
    clock_skews,
    differences_of_gaps,
    differences_of_shifts,
)


def walks(seed: int, skew_s: np.ndarray, n: int, wrong: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n walks on a ring of cameras, one or two steps of 15 s each; some people stop, some joins are wrong.

    Returns the earlier camera, the later camera and the gap by their clocks, seconds; all (n,).
    """
    rng = np.random.default_rng(seed)
    cameras = len(skew_s)
    earlier = rng.integers(0, cameras, n)
    step = rng.choice([-2, -1, 1, 2], n)
    later = (earlier + step) % cameras
    gap = 15 * np.abs(step) * rng.lognormal(0, 0.2, n) + np.where(rng.random(n) < 0.1, rng.exponential(300, n), 0)
    gap = np.where(rng.random(n) < wrong, rng.uniform(0, 900, n), gap)
    return earlier, later, gap + skew_s[later] - skew_s[earlier]


def truth(seed: int, cameras: int) -> np.ndarray:
    skew: np.ndarray = np.random.default_rng([seed, 1]).normal(0, 3, cameras)
    centered: np.ndarray = skew - skew.mean()
    return centered


@pytest.mark.parametrize("wrong, within_s", [(0.0, 0.4), (0.15, 1.0)])
def test_known_skews_are_found(wrong: float, within_s: float) -> None:
    skew = truth(0, 20)
    found = clock_skews(20, differences_of_gaps(20, *walks(0, skew, 20_000, wrong)))
    assert np.abs(found.skew_s - skew).max() < within_s
    assert found.skew_s.mean() == pytest.approx(0, abs=1e-9)
    assert (found.pairs == 4).all()
    assert (found.group == found.group[0]).all()


def test_standard_errors_have_the_right_size() -> None:
    ratios = []
    for seed in range(40):
        skew = truth(seed, 10)
        found = clock_skews(10, differences_of_gaps(10, *walks(seed, skew, 3_000)))
        ratios.append((found.skew_s - skew) / found.error_s)
    assert 0.6 < np.std(ratios) < 1.4


def test_a_pair_of_cameras_that_contradicts_the_others_counts_less() -> None:
    skew = truth(1, 8)
    pairs = differences_of_gaps(8, *walks(1, skew, 20_000))
    shift = pairs.shift_s.copy()
    shift[3] += 60  # an escalator: only one direction is fast
    found = clock_skews(8, pairs._replace(shift_s=shift))
    assert np.abs(found.skew_s - skew).max() < 1.0


def test_overlapping_views_give_the_difference_directly() -> None:
    rng = np.random.default_rng(0)
    first = np.tile([0, 1], 100)
    second = 1 - first
    shift = np.where(first == 0, 4.0, -4.0) + rng.normal(0, 0.5, 200)
    shift[:20] = 300  # wrong joins
    found = clock_skews(2, differences_of_shifts(2, first, second, shift))
    np.testing.assert_allclose(found.skew_s, [-2, 2], atol=0.15)


def test_both_kinds_together_and_an_unconnected_camera() -> None:
    skew = np.array([-1.0, 1.0, 5.0, 9.0, 0.0])
    n = 2_000
    rng = np.random.default_rng(0)
    way = rng.integers(0, 2, n)
    gap = 30 + rng.normal(0, 2, n) + np.where(way == 0, 2.0, -2.0)
    walked = differences_of_gaps(5, way, 1 - way, gap)
    seen = differences_of_shifts(5, np.full(n, 2), np.full(n, 3), rng.normal(4, 1, n))
    found = clock_skews(5, walked, seen)
    np.testing.assert_allclose(found.skew_s[:2], skew[:2], atol=0.3)  # mean zero in each group
    np.testing.assert_allclose(found.skew_s[2:4], [-2, 2], atol=0.3)
    assert found.group[0] == found.group[1] != found.group[2] == found.group[3]
    assert np.isnan([found.skew_s[4], found.error_s[4]]).all()
    assert found.pairs.tolist() == [1, 1, 1, 1, 0]


def test_too_few_gaps_or_a_single_direction_give_nothing() -> None:
    few = np.arange(2 * FEWEST - 1) % 2  # one direction has one too few
    assert not len(differences_of_gaps(2, few, 1 - few, np.full(len(few), 9.0)).first)
    many = np.zeros(100, np.int64)
    assert not len(differences_of_gaps(2, many, many + 1, np.full(100, 9.0)).first)
    assert not len(differences_of_gaps(2, many, many, np.full(100, 9.0)).first)  # one camera with itself


def test_long_stays_are_not_used() -> None:
    way = np.arange(400) % 2
    gap = np.where(way == 0, 33.0, 27.0)
    stays = np.where(way == 0, 30.0, 2000.0)  # most people who come back have stayed for half an hour
    both = [np.concatenate(pair) for pair in ((way, way), (1 - way, 1 - way), (gap, stays))]
    found = clock_skews(2, differences_of_gaps(2, *both))
    np.testing.assert_allclose(found.skew_s, [-1.125, 1.125], atol=0.5)


def test_no_pairs_at_all() -> None:
    nothing = np.empty(0, np.int64)
    found = clock_skews(3, differences_of_gaps(3, nothing, nothing, np.empty(0)))
    assert np.isnan(found.skew_s).all()
    assert found.pairs.tolist() == [0, 0, 0]


def columns(found: ClockSkews) -> list[np.ndarray]:
    return list(vars(found).values())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.floats(-100, 100))
def test_order_changes_nothing_and_a_clock_set_forward_is_found(seed: int, forward_s: float) -> None:
    earlier, later, gap = walks(seed, truth(seed, 6), 2_000)
    short = gap < 450  # so that setting a clock moves no gap across LONGEST_S
    earlier, later, gap = earlier[short], later[short], gap[short]
    before = clock_skews(6, differences_of_gaps(6, earlier, later, gap))
    rows = np.random.default_rng(seed).permutation(len(gap))
    shuffled = clock_skews(6, differences_of_gaps(6, earlier[rows], later[rows], gap[rows]))
    for one, other in zip(columns(before), columns(shuffled), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = gap + forward_s * (later == 0) - forward_s * (earlier == 0)
    after = clock_skews(6, differences_of_gaps(6, earlier, later, moved))
    change = after.skew_s - before.skew_s
    np.testing.assert_allclose(change[0] - change[1:], forward_s, atol=1e-6)


def test_differences_have_the_right_sign() -> None:
    found = differences_of_shifts(3, np.full(9, 2), np.full(9, 0), np.full(9, 7.0))
    assert isinstance(found, Differences)
    assert (found.first.tolist(), found.second.tolist(), found.shift_s.tolist()) == ([0], [2], [-7.0])
