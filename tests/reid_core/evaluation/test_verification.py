import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from reid_core.datasets.person_pictures import JUNK
from reid_core.evaluation.verification import (
    FIT,
    JUDGE,
    WIDTH,
    PairCounts,
    calibration_curve,
    logistic,
    operating_point,
    tpr_at_fpr,
)
from schemas.arrays import Ints


def labels(rng: np.random.Generator, many: int, people: int) -> tuple[Ints, Ints]:
    """Identities, some of them junk, and cameras."""
    return rng.integers(JUNK, people, many), rng.integers(0, 3, many)


def simulated(seed: int = 0, people: int = 40, spread: float = 0.25) -> tuple[PairCounts, NDArray[np.float64], Ints]:
    """Counts of 200 x 500 pairs; and distances and labels of the pairs that are not left out, collected one by one."""
    rng = np.random.default_rng(seed)
    (q, qc), (g, gc) = labels(rng, 200, people), labels(rng, 500, people)
    distances = np.clip(np.where(q[:, None] == g, 0.8, 1.3) + spread * rng.normal(size=(200, 500)), 0, 2)
    counts = PairCounts(g, gc, np.union1d(q, g))
    counts.update(distances[:90], q[:90], qc[:90])
    counts.update(distances[90:], q[90:], qc[90:])
    pairs = [
        (distances[i, j], q[i] == g[j], q[i], g[j])
        for i in range(200)
        for j in range(500)
        if q[i] != JUNK and g[j] != JUNK and not (q[i] == g[j] and qc[i] == gc[j])
    ]
    return counts, np.array([p[0] for p in pairs]), np.array([p[1:] for p in pairs]).astype(np.int64)


def test_counts_the_pairs_that_ranking_compares() -> None:
    found, distances, pairs = simulated()
    assert found.counts.sum() == len(distances)
    for same in (0, 1):
        here = distances[pairs[:, 0] == same]
        edges = np.ceil(here / WIDTH).astype(int)
        assert np.array_equal(found.counts.sum(0)[same], np.bincount(edges, minlength=found.counts.shape[2]))
    halves = np.searchsorted(found.people, pairs[:, 1:]) % 2
    assert found.counts[FIT].sum() == np.sum((halves == 0).all(1))
    assert found.counts[JUDGE].sum() == np.sum((halves == 1).all(1))


def test_tpr_at_fpr_equals_scikit_learns() -> None:
    found, distances, pairs = simulated()
    fprs, tprs, _ = roc_curve(pairs[:, 0], -distances, drop_intermediate=False)
    rates = tpr_at_fpr(found.counts.sum(0))
    assert list(rates) == [1e-1, 1e-2, 1e-3, 1e-4]  # the last stands for 9 of the 95,000 pairs of two people
    for fpr, point in rates.items():
        assert point.tpr == pytest.approx(tprs[fprs <= fpr].max(), abs=2e-3)
        assert point.fpr == pytest.approx(np.mean(distances[pairs[:, 0] == 0] <= point.threshold))
        assert point.fpr <= fpr < np.mean(distances[pairs[:, 0] == 0] <= point.threshold + 2 * WIDTH) + 1e-4


def test_the_operating_point_is_judged_on_other_people() -> None:
    found, distances, pairs = simulated()
    point = operating_point(found, "plain", "simulated", fpr=1e-2)
    assert point is not None
    halves = np.searchsorted(found.people, pairs[:, 1:]) % 2
    judged, fitted = (halves == 1).all(1), (halves == 0).all(1)
    two = distances[fitted & (pairs[:, 0] == 0)]
    assert np.mean(two <= point.threshold) <= 1e-2 < np.mean(two <= point.threshold + 0.01)
    assert point.fpr == pytest.approx(np.mean(distances[judged & (pairs[:, 0] == 0)] <= point.threshold))
    assert point.tpr == pytest.approx(np.mean(distances[judged & (pairs[:, 0] == 1)] <= point.threshold))
    assert point.pairs == judged.sum() and point.positives == pairs[judged, 0].sum()


def test_no_operating_point_from_too_few_pairs() -> None:
    found, _, _ = simulated()
    assert operating_point(found, "plain", "simulated", fpr=1e-5) is None
    alone = PairCounts(np.array([1]), np.array([1]), np.array([1]))
    alone.update(np.array([[0.5]]), np.array([1]), np.array([2]))
    assert tpr_at_fpr(alone.counts.sum(0)) == {} and calibration_curve(alone) is None


def test_a_constant_feature_has_no_true_positives() -> None:
    counts = np.zeros((2, 10), np.int64)
    counts[:, 0] = 1000, 10  # every distance is 0
    point = tpr_at_fpr(counts)[1e-1]
    assert (point.fpr, point.tpr) == (0, 0) and point.threshold < 0


def test_the_curve_is_calibrated_on_other_people() -> None:
    found = simulated(spread=0.2)[0]
    curve = calibration_curve(found)
    assert curve is not None and len(curve.predicted) == 15
    assert curve.ece < 0.05 and (np.diff(curve.predicted) < 0).all()
    # Two normal distances of one spread have log-odds linear in the distance: (1.3 - 0.8) / 0.2^2 a unit.
    assert curve.slope == pytest.approx(12.5, rel=0.15)
    assert curve.intercept / curve.slope == pytest.approx(1.05, abs=0.03)


def test_the_calibration_error_equals_its_definition() -> None:
    found, distances, pairs = simulated(spread=0.3)
    curve = calibration_curve(found, bins=5)
    assert curve is not None
    judged = (np.searchsorted(found.people, pairs[:, 1:]) % 2 == 1).all(1)
    distance, same = distances[judged], pairs[judged, 0]
    weight = np.where(same == 1, 0.5 / same.sum(), 0.5 / (1 - same).sum())
    order = np.argsort(distance)
    place = np.minimum((weight[order].cumsum() - weight[order] / 2) * 5, 4).astype(int)
    probability = 1 / (1 + np.exp(curve.slope * distance - curve.intercept))
    error = sum(abs(np.sum((weight * (probability - same))[order][place == b])) for b in range(5))
    assert curve.ece == pytest.approx(error, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_logistic_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(3000) < 0.1
    distance = np.where(same, rng.normal(0.5, 0.15, 3000), rng.normal(0.9, 0.2, 3000))
    slope, intercept = logistic(distance, same)
    theirs = LogisticRegression(C=np.inf).fit(distance[:, None], same)
    assert slope == pytest.approx(-theirs.coef_[0, 0], rel=0.02)
    assert intercept == pytest.approx(theirs.intercept_[0], rel=0.02)


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_logistic_stays_finite_on_extreme_data(gap: float) -> None:
    """Distances that separate the pairs perfectly, and distances that are larger for one person than for two."""
    same = np.arange(200) < 40
    slope, intercept = logistic(np.where(same, 0.3, 0.3 + gap) + np.linspace(0, 0.01, 200), same)
    assert 0 < slope < 1e4 and np.isfinite(intercept)
    slope, intercept = logistic(np.where(same, 0.9, 0.3), same)
    assert 0 < slope < 0.1 and np.isfinite(intercept)


def test_a_weight_is_a_number_of_pairs() -> None:
    rng = np.random.default_rng(0)
    distance, same, many = rng.random(400), rng.random(400) < 0.3, rng.integers(1, 4, 400)
    repeated = logistic(np.repeat(distance, many), np.repeat(same, many))
    assert logistic(distance, same, many.astype(float)) == pytest.approx(repeated, rel=1e-4)
