from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import lognorm

from pipeline.association.transit import FLOOR, MOST, bind, prior
from pipeline.association.transit_learning import learn
from schemas.calibration import TransitTimes

LOOKED_S = 3600.0
CHILDREN = tuple(f"d1/s{i:02}" for i in range(12))
#: One person's gap / expected time in the simulated city: walking slower than usual, with a few who stop.
WALK = lognorm(s=0.3, scale=1.6)
STOP = lognorm(s=0.8, scale=8.0)


@dataclass(frozen=True)
class Pairs:
    left: np.ndarray
    right: np.ndarray
    way_s: np.ndarray
    gap_s: np.ndarray
    same: np.ndarray

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(*(np.concatenate(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))

    def take(self, rows: np.ndarray) -> "Pairs":
        return Pairs(*(column[rows] for column in vars(self).values()))

    def learn(self, **given) -> TransitTimes:
        return learn(LOOKED_S, CHILDREN, *vars(self).values(), **given)


def ways(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left = rng.integers(0, len(CHILDREN), n)
    right = (left + rng.integers(1, len(CHILDREN), n)) % len(CHILDREN)
    return left, right, 8.0 + 15.0 * np.abs(left - right)


def joins(seed: int, n: int, wrong: float = 0.0) -> Pairs:
    rng = np.random.default_rng([seed, 1])
    left, right, t0 = ways(rng, n)
    ratio = np.where(rng.random(n) < 0.8, WALK.rvs(n, random_state=rng), STOP.rvs(n, random_state=rng))
    gap = np.where(rng.random(n) < wrong, rng.uniform(0, LOOKED_S, n), t0 * ratio)
    return Pairs(left, right, t0, gap, np.ones(n, bool))


def strangers(seed: int, n: int) -> Pairs:
    rng = np.random.default_rng([seed, 2])
    return Pairs(*ways(rng, n), rng.uniform(0, LOOKED_S, n), np.zeros(n, bool))


def truth(way_s: np.ndarray, gap_s: np.ndarray) -> np.ndarray:
    """The log likelihood ratio of the simulated city, cut as the model's is."""
    same = (0.8 * WALK.pdf(gap_s / way_s) + 0.2 * STOP.pdf(gap_s / way_s)) / way_s
    apart = 1 / LOOKED_S
    return np.clip(np.log(((1 - FLOOR) * same + FLOOR * apart) / apart), -MOST, MOST)


LEFT, RIGHT = np.zeros(60, np.int64), np.repeat([1, 4, 11], 20)
WAY_S = 8.0 + 15.0 * RIGHT
#: From a little faster than most walk up to the horizon.
GAP_S = np.concatenate([np.geomspace(t0, 3000, 20) for t0 in (23.0, 68.0, 173.0)])


def at_grid(model: TransitTimes) -> np.ndarray:
    return bind(model, CHILDREN).log_odds(LEFT, RIGHT, WAY_S, GAP_S)


def test_recovers_the_city_it_learned_from() -> None:
    model = (joins(0, 20_000) + strangers(0, 60_000)).learn(most_wrong=0)
    error = np.abs(at_grid(model) - truth(WAY_S, GAP_S))
    assert error.mean() < 0.2
    assert error.max() < 0.8
    assert (model.joins, model.compared, model.wrong_share) == (20_000, 60_000, 0)


def test_wrong_joins_change_little() -> None:
    clean = at_grid((joins(0, 20_000) + strangers(0, 60_000)).learn(most_wrong=0))
    fifth_wrong = joins(0, 20_000, wrong=0.2) + strangers(0, 60_000)
    taken_out = fifth_wrong.learn()
    assert 0.15 < taken_out.wrong_share < 0.25
    assert np.abs(at_grid(taken_out) - clean).mean() < 0.25
    believed = np.abs(at_grid(fifth_wrong.learn(most_wrong=0)) - clean)
    assert np.abs(at_grid(taken_out) - clean).mean() < believed.mean() / 2


def test_a_known_share_of_wrong_joins_is_taken_out_by_how_sure_each_is() -> None:
    clean = at_grid((joins(0, 20_000) + strangers(0, 60_000)).learn(most_wrong=0))
    fifth_wrong = joins(0, 20_000, wrong=0.2) + strangers(0, 60_000)
    model = fifth_wrong.learn(most_wrong=0, probability=np.full(80_000, 0.8))
    assert 0.17 < model.wrong_share < 0.23
    assert np.abs(at_grid(model) - clean).mean() < 0.25


def test_few_joins_stay_near_what_is_believed_before() -> None:
    before, few = prior(LOOKED_S), joins(0, 3).learn()
    assert np.abs(at_grid(few) - at_grid(before)).mean() < 0.3


def test_a_route_of_its_own_and_one_never_seen() -> None:
    usual = joins(0, 5_000)
    at = ((usual.left == 0) & (usual.right == 4)) | ((usual.left == 4) & (usual.right == 0))
    others = usual.take(~at)
    n = 200
    slow = Pairs(np.full(n, 4), np.zeros(n, np.int64), np.full(n, 68.0), np.full(n, 700.0), np.ones(n, bool))
    without, with_slow = (p.learn(most_wrong=0) for p in (others, others + slow))
    assert ("d1/s00", "d1/s04") not in {(r.left, r.right) for r in without.routes}
    pair = (np.array([0]), np.array([4]), np.array([68.0]))
    unseen = bind(without, CHILDREN).log_odds(*pair, np.array([700.0]))
    seen = bind(with_slow, CHILDREN).log_odds(*pair, np.array([700.0]))
    assert seen > 1 > unseen  # its own joins win over its kind's
    usual_gap = np.array([110.0])
    np.testing.assert_allclose(
        bind(without, CHILDREN).log_odds(*pair, usual_gap), truth(pair[2], usual_gap), atol=0.4
    )  # and without any it has what the others have


def test_another_unit_learns_by_the_way_alone() -> None:
    model = (joins(0, 20_000) + strangers(0, 60_000)).learn(most_wrong=0)
    elsewhere = bind(model, ("d2/s1", "d2/s2")).log_odds(LEFT, np.ones(60, np.int64), WAY_S, GAP_S)
    assert np.abs(elsewhere - truth(WAY_S, GAP_S)).mean() < 0.2


def test_near_ways_speak_for_one_person_where_people_go_to_near_places() -> None:
    anywhere = joins(0, 4_000)
    near = anywhere.take(np.flatnonzero(np.abs(anywhere.left - anywhere.right) < 4))
    model = (near + strangers(0, 20_000)).learn(most_wrong=0)
    assert model.ways[1] > 0.3 > -1 > model.ways[2]
    assert model.ways[0] == 0  # no way that short among either


def test_an_unknown_way_learns_in_seconds() -> None:
    known = joins(0, 5_000).take(np.arange(5_000))
    unknown = Pairs(known.left, known.right, np.full(5_000, np.nan), np.full(5_000, 50.0), known.same)
    model = bind(unknown.learn(most_wrong=0), CHILDREN)
    usual, other = model.log_odds(
        np.array([0, 0]), np.array([1, 1]), np.array([np.nan, np.nan]), np.array([50.0, 2000.0])
    )
    assert usual > 2
    assert other < -2


def test_nothing_is_impossible() -> None:
    same_gap = joins(0, 5_000)
    never = Pairs(same_gap.left, same_gap.right, same_gap.way_s, np.full(5_000, 90.0), same_gap.same)
    found = bind((never + strangers(0, 5_000)).learn(most_wrong=0), CHILDREN)
    hours = found.log_odds(np.array([0]), np.array([1]), np.array([23.0]), np.array([3000.0]))
    assert -MOST <= hours < -3


def test_clocks_that_differ_by_a_second_change_little() -> None:
    pairs = joins(0, 20_000) + strangers(0, 60_000)
    rng = np.random.default_rng(0)
    skewed = Pairs(pairs.left, pairs.right, pairs.way_s, pairs.gap_s + rng.normal(0, 1, 80_000), pairs.same)
    assert np.abs(at_grid(skewed.learn(most_wrong=0)) - at_grid(pairs.learn(most_wrong=0))).mean() < 0.1


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.booleans())
def test_order_of_the_pairs_and_of_their_ends_changes_no_byte(random, flip: bool) -> None:
    pairs = joins(1, 300, wrong=0.2) + strangers(1, 600)
    rows = np.array(random.sample(range(900), 900))
    shuffled = pairs.take(rows)
    if flip:
        shuffled = Pairs(shuffled.right, shuffled.left, *list(vars(shuffled).values())[2:])
    model = pairs.learn()
    assert model.digest() == shuffled.learn().digest()
    assert TransitTimes.model_validate_json(model.model_dump_json()).digest() == model.digest()


@pytest.mark.parametrize("weight", [2.0, 7.0])
def test_a_weight_stands_for_so_many_pairs(weight: float) -> None:
    pairs = joins(2, 100) + strangers(2, 100)
    once = pairs.learn(weight=np.full(200, weight))
    often = pairs.take(np.repeat(np.arange(200), int(weight))).learn()
    np.testing.assert_allclose(at_grid(once), at_grid(often), atol=1e-4)
    assert (once.joins, once.compared) == (often.joins, often.compared)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 30))
def test_whatever_was_learned_log_odds_are_bounded(seed: int, many_joins: int, many_strangers: int) -> None:
    rng = np.random.default_rng(seed)
    n = many_joins + many_strangers
    t0 = np.where(rng.random(n) < 0.2, np.nan, rng.uniform(5, 2000, n))
    ends = rng.integers(0, 12, (2, n))
    pairs = Pairs(ends[0], ends[1], t0, rng.normal(0, 10.0 ** rng.uniform(-3, 8), n), np.arange(n) < many_joins)
    found = at_grid(pairs.learn())
    assert np.isfinite(found).all()
    assert (np.abs(found) <= MOST).all()
