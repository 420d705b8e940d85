"""Which levels have enough to learn from."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.association.log_odds import appearance_log_odds
from pipeline.calibration.unlabeled.level_fit import LevelFit, fit_unlabeled, keeps_rate
from pipeline.calibration.unlabeled.pair_sample import PairSample
from reid_core.catalog import find_model
from schemas.calibration import DistancePrior
from schemas.levels import Level


def sample(n: int) -> PairSample:
    """n pairs that cannot be one person, and n that may be; of these every fifth is."""
    rng = np.random.default_rng(0)
    distance = rng.normal(1.25, 0.09, 2 * n)
    distance[n::5] = rng.normal(0.7, 0.1, len(distance[n::5]))
    return PairSample(
        different=np.arange(2 * n) < n,
        distance=distance,
        left_weight=np.ones(2 * n),
        right_weight=np.ones(2 * n),
        weight=np.ones(2 * n),
        shortlisted=np.ones(2 * n, bool),
        gap_s=np.full(2 * n, 30.0),
        expected_s=np.full(2 * n, np.nan),
        left_child=np.zeros(2 * n, np.int64),
        right_child=np.ones(2 * n, np.int64),
        left_camera=np.zeros(2 * n, np.int64),
        right_camera=np.ones(2 * n, np.int64),
        left=np.arange(2 * n),
        right=np.arange(2 * n) + 2 * n,
        alone=np.ones(2 * n, bool),
    )


def fitted(pairs: PairSample, known: DistancePrior | None = None) -> LevelFit | str:
    return fit_unlabeled(
        Level.BUILDING, pairs, (pairs.left, pairs.right), ["b/1", "b/2"], 900.0, 0.4, None, known, "a test"
    )


def test_pairs_of_two_cameras_are_learned_from_and_those_of_one_camera_are_not() -> None:
    """What is known of strangers is of two cameras, mostly; at one camera strangers are nearer, and would be joined."""
    pairs = sample(400)
    found = fitted(pairs)
    assert isinstance(found, LevelFit) and 70 < found.calibration.positives < 90
    one_camera = np.where(pairs.different, pairs.right_child, 0)
    assert fitted(replace(pairs, right_child=one_camera)) == "only 0 pairs of two cameras to compare"
    few = np.where(pairs.different | (np.arange(800) % 9 == 0), pairs.right_child, 0)
    assert fitted(replace(pairs, right_child=few)) == "only 44 pairs of two cameras to compare"


def test_a_level_with_few_pairs_takes_what_is_known_and_says_so() -> None:
    """It joined nothing, whatever was known of the model or of the level below."""
    known = find_model("person-reidentification-retail-0286").distances
    pairs = sample(400)
    few = replace(pairs, right_child=np.where(pairs.different | (np.arange(800) % 9 == 0), pairs.right_child, 0))
    of_model = fitted(few, known)
    assert isinstance(of_model, LevelFit)
    assert of_model.why_prior == "only 44 pairs of two cameras to compare; it takes what is known of the model"
    assert of_model.calibration.fitted_on.startswith("only 44 pairs of two cameras to compare, so what was known")
    below = fitted(pairs)
    assert isinstance(below, LevelFit)
    children = ["b/1", "b/2"]
    of_below = fit_unlabeled(Level.STREET, few, None, children, 900.0, 0.4, below, None, "a test")
    assert isinstance(of_below, LevelFit) and "of the level below" in of_below.why_prior
    guess = fit_unlabeled(Level.DISTRICT, few, None, children, 900.0, 0.4, of_below, None, "a test")
    assert guess == "only 44 pairs of two streets to compare"
    for found, one_person in ((of_model, 0.45), (of_below, 0.7)):
        terms, transit = found.calibration.terms, found.estimate.transit
        assert found.calibration.join_log_odds == 4.0  # from the lowest point on a quarter of the next joins was wrong
        two = few.left_child != few.right_child
        # As near as one person is, and as far as strangers are; returns to one camera are four log-odds less.
        assert appearance_log_odds(terms, one_person) > 1.0 and appearance_log_odds(terms, 1.25) < -4.0
        assert transit[two & ~few.different].min() == 0.0 and transit[~two].max() == -4.0


def test_a_level_of_one_child_is_not_learned() -> None:
    """A district of one street compares its people again over hours: each of its joins was wrong."""
    pairs = sample(400)
    one_street = np.where(pairs.different, pairs.right_child, pairs.left_child)
    found = fit_unlabeled(
        Level.DISTRICT, replace(pairs, right_child=one_street), None, ["s/1", "s/2"], 3_600.0, 0.4, None, None, "a test"
    )
    assert found == "only 0 pairs of two streets to compare"


def test_times_that_one_kind_of_pairs_has_more_often_do_not_make_its_pairs_one_person() -> None:
    """Single tracklets are compared a minute later, identities an hour later, and hardly any two are one person.

    The times' ratio was that of all kinds together. For single tracklets it was 12 on the mean over strangers, and at
    each round more of these were found to be one person.
    """
    rng = np.random.default_rng(1)
    n = 8_000
    pairs = sample(n // 2)
    distance = rng.normal(1.25, 0.09, n)
    alone = np.arange(n) % 8 == 0
    same = ~pairs.different & alone & (rng.random(n) < 0.15)
    distance[same] = rng.normal(0.9, 0.1, int(same.sum()))
    gap_s = np.where(alone, rng.uniform(40, 90, n), rng.uniform(600, 3_500, n))
    pairs = replace(pairs, distance=distance, alone=alone, gap_s=gap_s, expected_s=np.full(n, 60.0))
    found = fit_unlabeled(Level.STREET, pairs, None, ["b/1", "b/2"], 3_600.0, 0.4, None, None, "a test")
    assert isinstance(found, LevelFit)
    mixture = found.estimate.mixture
    assert mixture.probability.sum() == pytest.approx(same.sum(), rel=0.3)
    for kind in (alone, ~alone):
        strangers = ~pairs.different & ~same & kind
        assert np.exp(found.estimate.witness[strangers]).mean() == pytest.approx(1, abs=0.05)


def test_whoever_comes_back_at_an_odd_time_is_no_stranger() -> None:
    """People come back much later than their way takes. Their pairs were strangers', and no near pair was sure."""
    rng = np.random.default_rng(2)
    n = 8_000
    pairs = sample(n // 2)
    late = np.arange(n) % 2 == 0
    same = ~pairs.different & (rng.random(n) < 0.03)
    distance = np.where(same, rng.normal(0.7, 0.08, n), rng.normal(1.25, 0.09, n))
    gap_s = np.where(late, rng.uniform(1_500, 3_500, n), rng.uniform(40, 90, n))
    pairs = replace(pairs, distance=distance, gap_s=gap_s, expected_s=np.full(n, 60.0))
    some = ~pairs.different | (rng.random(n) < 0.2)
    found = fit_unlabeled(Level.STREET, pairs.take(some), None, ["b/1", "b/2"], 3_600.0, 0.4, None, None, "a test")
    assert isinstance(found, LevelFit)
    probability = found.estimate.mixture.probability
    assert probability[(same & ~late)[some]].mean() > 0.9
    assert probability.sum() == pytest.approx(same.sum(), rel=0.15)


def test_whom_overlapping_views_see_at_once_teaches_one_persons_distances() -> None:
    rng = np.random.default_rng(2)
    n = 8_000
    pairs = sample(n // 2)
    once = ~pairs.different & (rng.random(n) < 0.1)
    same = ~pairs.different & (rng.random(n) < np.where(once, 0.8, 0.005))
    distance = np.where(same, rng.normal(0.9, 0.12, n), rng.normal(1.25, 0.09, n))
    gap_s = np.where(once, -2.0, rng.uniform(20, 890, n))
    pairs = replace(pairs, distance=distance, gap_s=gap_s, expected_s=np.full(n, 60.0))
    found = fitted(pairs)
    assert isinstance(found, LevelFit)
    one = found.estimate.mixture.one_person
    assert one.mode == pytest.approx(0.9, abs=0.04) and one.near == pytest.approx(0.12, rel=0.25)
    rest = fitted(pairs.take(~once))
    assert isinstance(rest, str) and "too few to tell from chance" in rest


def test_the_fewer_pairs_there_were_the_more_of_the_stated_wrong_joins_counts() -> None:
    """Half was counted always; a version of five minutes had more wrong joins than were stated."""
    found = fitted(sample(400))
    assert isinstance(found, LevelFit)
    joins = np.full(40, 2.5)  # 7.6 % stated
    few, many = (found.calibration.model_copy(update={"positives": count}) for count in (30, 3_000))
    assert keeps_rate(few, joins, 0.2)[1] == pytest.approx(0.067, abs=0.002)
    assert keeps_rate(many, joins, 0.2)[1] == pytest.approx(0.039, abs=0.002)


def test_what_is_known_of_a_model_counts_until_the_city_shows_more() -> None:
    known = find_model("person-reidentification-retail-0286").distances
    terms = {
        (count, prior is None): found.calibration.terms
        for count in (400, 1_000)
        for prior in (known, None)
        if isinstance(found := fitted(sample(count), prior), LevelFit)
    }
    assert len(terms) == 4
    assert terms[400, True] != terms[400, False] and terms[1_000, True] == terms[1_000, False]


def test_what_operators_said_counts_and_not_against_what_cannot_be() -> None:
    pairs = sample(400)
    near = pairs.distance < 0.95

    def with_labels(label: np.ndarray) -> LevelFit | str:
        children, people = ["b/1", "b/2"], (pairs.left, pairs.right)
        return fit_unlabeled(Level.BUILDING, pairs, people, children, 900.0, 0.4, None, None, "a test", label)

    nothing = with_labels(np.full(len(pairs), -1))
    assert isinstance(nothing, LevelFit) and nothing.calibration == getattr(fitted(pairs), "calibration", None)
    denied = with_labels(np.where(near, 0, -1))
    assert isinstance(denied, str) and "too few to tell from chance" in denied
    some = np.flatnonzero(~near & ~pairs.different)[:10]
    label = np.where(np.isin(np.arange(len(pairs)), some) | pairs.different, 1, -1)
    found = with_labels(label)
    assert isinstance(found, LevelFit) and (found.estimate.mixture.probability[some] == 1).all()
    assert not found.estimate.mixture.probability[pairs.different].any()
