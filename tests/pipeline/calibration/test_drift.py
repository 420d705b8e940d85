import numpy as np
import pytest

from pipeline.calibration.drift import KS_LIMIT, PSI_LIMIT, drift, profile
from schemas.calibration import Profile


@pytest.mark.parametrize("n", [30, 300, 30_000])
def test_the_same_data_seldom_drift(n: int) -> None:
    before = profile(np.random.default_rng(0).normal(0.6, 0.1, 5_000))
    warned = [drift(before, np.random.default_rng([1, seed]).normal(0.6, 0.1, n)).drifted for seed in range(100)]
    assert np.mean(warned) <= 0.05


@pytest.mark.parametrize("center, width", [(0.66, 0.1), (0.54, 0.1), (0.6, 0.2)])
def test_other_data_drift(center: float, width: float) -> None:
    before = profile(np.random.default_rng(0).normal(0.6, 0.1, 5_000))
    found = drift(before, np.random.default_rng(1).normal(center, width, 2_000))
    assert found.drifted
    assert (found.psi_limit, found.ks_limit, found.count) == (PSI_LIMIT, KS_LIMIT, 2_000)
    assert Profile.model_validate_json(before.model_dump_json()) == before


def test_a_shift_of_all_values_is_the_largest_distance() -> None:
    before = profile(np.arange(1000.0))
    found = drift(before, np.arange(1000.0) + 5_000)
    assert found.ks == pytest.approx(0.9, abs=0.01)  # up to the last decile
    assert drift(before, np.arange(1000.0)).psi == pytest.approx(0, abs=1e-9)


def test_ties_and_no_values_are_no_drift() -> None:
    constant = profile(np.full(100, 0.5))
    assert not drift(constant, np.full(1000, 0.5)).drifted
    assert drift(constant, np.full(1000, 0.7)).drifted
    assert not drift(constant, np.empty(0)).drifted
