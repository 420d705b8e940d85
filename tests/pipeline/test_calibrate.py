import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.calibrate import _logistic, calibrate
from schemas.errors import InputError
from tests.pipeline.resolve.conftest import PACKAGED


@pytest.mark.parametrize("seed", range(5))
def test_logistic_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(3000) < 0.1
    distance = np.where(same, rng.normal(0.5, 0.15, 3000), rng.normal(0.9, 0.2, 3000))
    slope, intercept = _logistic(distance, same)
    theirs = LogisticRegression(C=np.inf).fit(distance[:, None], same)
    assert slope == pytest.approx(-theirs.coef_[0, 0], rel=0.02)
    assert intercept == pytest.approx(theirs.intercept_[0], rel=0.02)


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_logistic_stays_finite_where_data_are_no_help(gap: float) -> None:
    """Distances that part the pairs perfectly, and distances that point the wrong way."""
    same = np.arange(200) < 40
    slope, intercept = _logistic(np.where(same, 0.3, 0.3 + gap) + np.linspace(0, 0.01, 200), same)
    assert 0 < slope < 1e4 and np.isfinite(intercept)
    slope, intercept = _logistic(np.where(same, 0.9, 0.3), same)
    assert 0 < slope < 0.1 and np.isfinite(intercept)


@pytest.mark.parametrize("source", ["", "rendered:", "rendered:one", "elsewhere:1", "market1501:/nowhere/at/all"])
def test_bad_sources_say_what_to_write(settings, source: str) -> None:
    with pytest.raises(InputError):
        calibrate(settings, PACKAGED, source)
