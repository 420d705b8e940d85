"""The posterior: its laws, its merging, and that it holds where data follow the model."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.search.likelihood import DistanceCounts, Reference, log_ratios, look_ratios
from pipeline.search.posterior import KEPT, Evidence, poisson_mean, posterior
from pipeline.search.transit import Transit
from schemas.arrays import Floats
from schemas.calibration import DistanceTerms, SearchCalibration
from schemas.levels import Level

CALIBRATION = SearchCalibration(
    level=Level.DISTRICT,
    knots=(-5.0,),
    terms=DistanceTerms(intercept=-5.0, slopes=(1.5, 2.0)),
    vectors=0.5,
    learned=(-10.0, 1.0),
    center=1.2,
    spread=0.1,
    identities=1.4,
    confusions=0.1,
    searches=0,
    fitted_on="nothing",
)
EXACT = CALIBRATION.model_copy(update={"identities": 1.0, "confusions": 0.0})
RATIOS = st.lists(st.floats(-20, 20), min_size=1, max_size=400).map(np.array)


@given(RATIOS)
def test_with_one_identity_a_person_it_is_bayes_rule(ratios: Floats) -> None:
    found = posterior(Evidence.of(ratios), EXACT)
    weights = np.exp(ratios) / len(ratios)
    assert found.not_here == pytest.approx(1 / (1 + weights.sum()), rel=1e-3)
    if len(ratios) <= KEPT:
        assert sum(map(found.of, ratios.tolist())) + found.not_here == pytest.approx(1, abs=2e-3)


def test_with_several_it_is_the_sum_over_all_sets_of_identities() -> None:
    ratios = np.array([4.0, 3.0, -1.0, 0.5])
    odds = poisson_mean(CALIBRATION.identities) / len(ratios)
    capped = np.exp(ratios) / (1 + np.exp(ratios) * CALIBRATION.confusions / len(ratios))
    weight = {}
    for size in range(1, len(ratios) + 1):
        for chosen in itertools.combinations(range(len(ratios)), size):
            weight[chosen] = math.prod(odds * capped[i] for i in chosen) / ((1 + odds) ** len(ratios) - 1)
    total = 0.5 + 0.5 * sum(weight.values())
    found = posterior(Evidence.of(ratios), CALIBRATION)
    assert found.not_here == pytest.approx(0.5 / total)
    for i, ratio in enumerate(ratios.tolist()):
        expected = 0.5 * sum(value for chosen, value in weight.items() if i in chosen) / total
        assert found.of(ratio) == pytest.approx(expected)


@given(RATIOS, st.data())
def test_merging_two_parts_equals_the_whole(ratios: Floats, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(ratios)))
    whole, merged = Evidence.of(ratios), Evidence.of(ratios[:cut]) + Evidence.of(ratios[cut:])
    assert merged.count == whole.count and merged.log_sum == pytest.approx(whole.log_sum)
    assert merged.best.tolist() == whole.best.tolist() and merged.log_rest == pytest.approx(whole.log_rest)
    assert posterior(merged, CALIBRATION).not_here == pytest.approx(posterior(whole, CALIBRATION).not_here)


def test_merging_the_distances_of_two_parts_gives_the_reference_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    vectors = np.append(rng.integers(1, 3, 1200), rng.integers(1, 6, 3800))
    distance = rng.normal(1.2, 0.1, 5000) - 0.01 * vectors
    parts = DistanceCounts.of(distance[:1200], vectors[:1200]) + DistanceCounts.of(distance[1200:], vectors[1200:])
    reference = Reference.of(parts)
    assert reference == Reference.of(DistanceCounts.of(distance, vectors))
    assert reference.center == pytest.approx(np.median(distance), abs=2e-3)
    assert reference.spread == pytest.approx(0.1, rel=0.05)
    assert reference.centers[5] == pytest.approx(1.15, abs=0.01) and reference.centers[1] > reference.centers[5]
    standardized = reference.standardized(distance, vectors)
    for many in (1, 5):  # whoever has more prototypes is nearer by chance, and no more remarkable for it
        assert np.median(standardized[vectors == many]) == pytest.approx(0, abs=0.05)


def test_time_and_place_tell_a_person_from_a_look_alike_and_what_is_impossible_counts_for_nothing() -> None:
    look, transit = np.array([12.0, 12.0, 12.0, -3.0]), np.array([2.0, -2.0, 0.0, 0.0])
    impossible = np.array([False, False, True, False])
    ratios = log_ratios(CALIBRATION.model_copy(update={"transit": 0.9}), look, Transit(transit, impossible))
    assert ratios.tolist() == [13.8, 10.2, -math.inf, -3.0]
    found = posterior(Evidence.of(ratios, look), CALIBRATION)
    stated = found.each(ratios, look)
    assert stated[0] > 0.9 > 0.6 > stated[1] > stated[3] > stated[2] == 0
    # As near as can be, all are equally likely to be confusions: only the transit tells them apart.
    odds = stated[:2] / (found.each(np.array([math.inf]), look[:1])[0] - stated[:2])
    assert math.log(odds[0] / odds[1]) == pytest.approx(3.6, abs=0.05)
    parts = Evidence.of(ratios[:1], look[:1]) + Evidence.of(ratios[1:], look[1:])
    assert posterior(parts, CALIBRATION).not_here == pytest.approx(found.not_here)


def test_nothing_compared_leaves_the_prior_and_says_not_here() -> None:
    nothing = posterior(Evidence.of(np.empty(0)), CALIBRATION)
    assert nothing.not_here == 1 and Evidence.of(np.empty(0)).log_sum == -math.inf
    assert posterior(Evidence.of(np.zeros(7)), EXACT).not_here == pytest.approx(0.5, abs=1e-5)


def test_a_nearer_identity_is_never_less_probable_and_more_vectors_count_less() -> None:
    z = np.linspace(-15, 15, 300)
    ratios = look_ratios(CALIBRATION, z, np.ones(300, int))
    assert (np.diff(ratios) <= 0).all()
    assert (look_ratios(CALIBRATION, z, np.full(300, 5)) < ratios).all()
    stated = posterior(Evidence.of(ratios), CALIBRATION)
    assert (np.diff([stated.of(ratio) for ratio in ratios.tolist()]) <= 0).all()


def test_outside_of_what_was_learned_the_ratio_does_not_go_on() -> None:
    near, end, far, other_end = look_ratios(CALIBRATION, np.array([-60.0, -10.0, 60.0, 1.0]), np.ones(4, int))
    assert near == end and far == other_end


def test_the_same_match_says_less_in_a_larger_city() -> None:
    def found(strangers: int) -> float:
        ratios = np.append(np.full(strangers, -5.0), 6.0)
        return posterior(Evidence.of(ratios), CALIBRATION).of(6.0)

    assert found(100) > 0.6 > 0.1 > found(30_000)


@pytest.mark.parametrize("strangers", [100, 5000])
def test_probabilities_hold_where_data_follow_the_model(strangers: int) -> None:
    """Ratios of normal densities, N(2, 1) for the person and N(0, 1) for a stranger: log ratio 2 x - 2."""
    rng, stated, right, absent = np.random.default_rng(strangers), [], [], []
    for trial in range(3000):
        x = rng.normal(0, 1, strangers)
        if trial % 2:
            x[0] += 4
        ratios = 4 * x - 8
        found = posterior(Evidence.of(ratios), EXACT)
        best = int(np.argmax(ratios))
        stated.append((found.of(float(ratios[best])), found.not_here))
        right.append(best == 0 and trial % 2 == 1)
        absent.append(trial % 2 == 0)
    p, not_here = np.array(stated).T
    for predicted, observed in ((p, np.array(right)), (not_here, np.array(absent))):
        order = np.argsort(predicted)
        for part in np.array_split(order, 5):
            assert predicted[part].mean() == pytest.approx(observed[part].mean(), abs=0.06)
