from dataclasses import dataclass, replace
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import lognorm

from pipeline.association.transit import CLIP, OUTLIER_SHARE, prior_times, unit_transit
from pipeline.association.transit_learning import learn_times
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import TransitTimes

LOOKBACK_S = 3600.0
CHILDREN = tuple(f"d1/s{i:02}" for i in range(12))
#: One person's gap / expected time in the simulated city: people walk slower than usual, and a fifth stops.
WALK = lognorm(s=0.3, scale=1.6)
STOP = lognorm(s=0.8, scale=8.0)


@dataclass(frozen=True)
class Pairs:
    left: Ints
    right: Ints
    expected_s: Floats
    gap_s: Floats
    same: Bools

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(*(np.concatenate(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))

    def take(self, rows: Ints | Bools) -> "Pairs":
        return Pairs(*(column[rows] for column in vars(self).values()))

    def learn(self, probability: Floats | None = None) -> TransitTimes:
        columns = (self.left, self.right, self.expected_s, self.gap_s, self.same)
        return learn_times(LOOKBACK_S, CHILDREN, *columns, probability=probability)


def routes(rng: np.random.Generator, n: int) -> tuple[Ints, Ints, Floats]:
    """Random left child, right child and expected time."""
    left = rng.integers(0, len(CHILDREN), n)
    right = (left + rng.integers(1, len(CHILDREN), n)) % len(CHILDREN)
    return left, right, 8.0 + 15.0 * np.abs(left - right)


def joins(seed: int, n: int, wrong: float = 0.0) -> Pairs:
    rng = np.random.default_rng([seed, 1])
    left, right, expected_s = routes(rng, n)
    ratio = np.where(rng.random(n) < 0.8, WALK.rvs(n, random_state=rng), STOP.rvs(n, random_state=rng))
    gap = np.where(rng.random(n) < wrong, rng.uniform(0, LOOKBACK_S, n), expected_s * ratio)
    return Pairs(left, right, expected_s, gap, np.ones(n, bool))


def strangers(seed: int, n: int) -> Pairs:
    rng = np.random.default_rng([seed, 2])
    return Pairs(*routes(rng, n), rng.uniform(0, LOOKBACK_S, n), np.zeros(n, bool))


def truth(expected_s: Floats, gap_s: Floats) -> Floats:
    """The log likelihood ratio of the simulated city, clipped as the model's is."""
    ratio = gap_s / expected_s
    same = (0.8 * WALK.pdf(ratio) + 0.2 * STOP.pdf(ratio)) / expected_s
    apart = 1 / LOOKBACK_S
    ratio = ((1 - OUTLIER_SHARE) * same + OUTLIER_SHARE * apart) / apart
    return np.asarray(np.clip(np.log(ratio), -CLIP, CLIP), np.float64)


LEFT, RIGHT = np.zeros(60, np.int64), np.repeat([1, 4, 11], 20)
EXPECTED_S = 8.0 + 15.0 * RIGHT
#: From a little faster than most people walk up to the lookback.
GAP_S = np.concatenate([np.geomspace(expected_s, 3000, 20) for expected_s in (23.0, 68.0, 173.0)])


def at_grid(model: TransitTimes) -> Floats:
    """Log-odds of the pairs above."""
    return unit_transit(model, CHILDREN).log_odds(LEFT, RIGHT, EXPECTED_S, GAP_S)


def test_recovers_the_city_it_learned_from() -> None:
    model = (joins(0, 20_000) + strangers(0, 60_000)).learn()
    error = np.abs(at_grid(model) - truth(EXPECTED_S, GAP_S))
    assert error.mean() < 0.2
    assert error.max() < 0.8
    assert (model.joins, model.compared, model.wrong_share) == (20_000, 60_000, 0)


def test_wrong_joins_are_taken_out_by_their_probability() -> None:
    clean = at_grid((joins(0, 20_000) + strangers(0, 60_000)).learn())
    fifth_wrong = joins(0, 20_000, wrong=0.2) + strangers(0, 60_000)
    model = fifth_wrong.learn(np.full(80_000, 0.8))
    assert 0.17 < model.wrong_share < 0.23
    error = np.abs(at_grid(model) - clean).mean()
    assert error < 0.25
    assert error < np.abs(at_grid(fifth_wrong.learn()) - clean).mean() / 2


def test_few_joins_stay_near_the_prior() -> None:
    prior, few = prior_times(LOOKBACK_S), joins(0, 3).learn()
    assert np.abs(at_grid(few) - at_grid(prior)).mean() < 0.3


def test_a_route_with_joins_of_its_own_and_one_without() -> None:
    usual = joins(0, 5_000)
    at = ((usual.left == 0) & (usual.right == 4)) | ((usual.left == 4) & (usual.right == 0))
    others = usual.take(~at)
    n = 200
    slow = Pairs(np.full(n, 4), np.zeros(n, np.int64), np.full(n, 68.0), np.full(n, 700.0), np.ones(n, bool))
    without, with_slow = (p.learn() for p in (others, others + slow))
    assert ("d1/s00", "d1/s04") not in {(r.left, r.right) for r in without.routes}
    pair = (np.array([0]), np.array([4]), np.array([68.0]))
    unseen = unit_transit(without, CHILDREN).log_odds(*pair, np.array([700.0]))
    seen = unit_transit(with_slow, CHILDREN).log_odds(*pair, np.array([700.0]))
    assert seen > 1 > unseen  # its own joins outweigh those of its kind
    usual_gap = np.array([110.0])
    np.testing.assert_allclose(
        unit_transit(without, CHILDREN).log_odds(*pair, usual_gap), truth(pair[2], usual_gap), atol=0.4
    )  # without joins of its own it has what its kind has


def test_another_unit_uses_the_expected_time_alone() -> None:
    model = (joins(0, 20_000) + strangers(0, 60_000)).learn()
    elsewhere = unit_transit(model, ("d2/s1", "d2/s2")).log_odds(LEFT, np.ones(60, np.int64), EXPECTED_S, GAP_S)
    assert np.abs(elsewhere - truth(EXPECTED_S, GAP_S)).mean() < 0.2


def test_near_routes_raise_the_log_odds_where_people_go_to_near_places() -> None:
    anywhere = joins(0, 4_000)
    near = anywhere.take(np.flatnonzero(np.abs(anywhere.left - anywhere.right) < 4))
    model = (near + strangers(0, 20_000)).learn()
    assert model.kind_log_ratios[1] > 0.3 > -1 > model.kind_log_ratios[2]
    assert model.kind_log_ratios[0] == 0  # no route that short among joins or strangers


def test_routes_of_unknown_time_are_learned_in_seconds() -> None:
    known = joins(0, 5_000).take(np.arange(5_000))
    unknown = Pairs(known.left, known.right, np.full(5_000, np.nan), np.full(5_000, 50.0), known.same)
    model = unit_transit(unknown.learn(), CHILDREN)
    usual, other = model.log_odds(
        np.array([0, 0]), np.array([1, 1]), np.array([np.nan, np.nan]), np.array([50.0, 2000.0])
    )
    assert usual > 2
    assert other < -2


def test_nothing_is_impossible() -> None:
    same_gap = joins(0, 5_000)
    never = Pairs(same_gap.left, same_gap.right, same_gap.expected_s, np.full(5_000, 90.0), same_gap.same)
    found = unit_transit((never + strangers(0, 5_000)).learn(), CHILDREN)
    hours = found.log_odds(np.array([0]), np.array([1]), np.array([23.0]), np.array([3000.0]))
    assert -CLIP <= hours < -3


def test_a_clock_error_of_a_second_changes_little() -> None:
    pairs = joins(0, 20_000) + strangers(0, 60_000)
    rng = np.random.default_rng(0)
    skewed = Pairs(pairs.left, pairs.right, pairs.expected_s, pairs.gap_s + rng.normal(0, 1, 80_000), pairs.same)
    assert np.abs(at_grid(skewed.learn()) - at_grid(pairs.learn())).mean() < 0.1


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_pairs_and_of_their_ends_changes_no_byte(random: Random, flip: bool) -> None:
    pairs = joins(1, 300, wrong=0.2) + strangers(1, 600)
    rows = np.array(random.sample(range(900), 900))
    shuffled = pairs.take(rows)
    if flip:
        shuffled = replace(shuffled, left=shuffled.right, right=shuffled.left)
    probability = np.full(900, 0.8)
    model = pairs.learn(probability)
    assert model.digest() == shuffled.learn(probability).digest()
    assert TransitTimes.model_validate_json(model.model_dump_json()).digest() == model.digest()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 30))
def test_log_odds_are_bounded_whatever_was_learned(seed: int, many_joins: int, many_strangers: int) -> None:
    rng = np.random.default_rng(seed)
    n = many_joins + many_strangers
    expected_s = np.where(rng.random(n) < 0.2, np.nan, rng.uniform(5, 2000, n))
    ends = rng.integers(0, 12, (2, n))
    pairs = Pairs(ends[0], ends[1], expected_s, rng.normal(0, 10.0 ** rng.uniform(-3, 8), n), np.arange(n) < many_joins)
    found = at_grid(pairs.learn())
    assert np.isfinite(found).all()
    assert (np.abs(found) <= CLIP).all()
