"""The distances of different people: their density far into its tail, and whose pairs show it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import skewnorm

from pipeline.calibration.unlabeled.strangers import LogDensity, Rows, strangers_of
from schemas.arrays import Floats


def below(density: LogDensity, z: float) -> float:
    """The share below z."""
    grid = np.arange(-20.0, z, 0.01)
    return float(np.exp(density(grid)).sum() * 0.01)


@pytest.mark.parametrize("skew", [0.0, -3.0])
@pytest.mark.parametrize("rows", [3_000, 100_000])
def test_a_density_holds_far_into_its_tail(skew: float, rows: int) -> None:
    """Its steps once ended before they had arrived, and the tail was twice as heavy as the distances themselves."""
    z = skewnorm.rvs(skew, size=rows, random_state=1)
    found = LogDensity(z, np.ones(rows))
    for share in (0.1, 30 / 3_000, 300 / rows):
        assert below(found, float(np.quantile(z, share))) == pytest.approx(share, rel=0.25)
    assert below(found, 8.0) == pytest.approx(1, abs=0.03)


def test_weights_are_counts() -> None:
    z = np.random.default_rng(0).normal(size=4_000)
    found = LogDensity(z, np.exp(-z))  # a normal density times an exponential is a normal density around -1
    assert below(found, -1.0) == pytest.approx(0.5, rel=0.1)
    assert below(found, -2.0) == pytest.approx(0.159, rel=0.2)


def rows_of(distance: Floats, different: int, untimely: int) -> Rows:
    """The first ones cannot be one person, the next hardly can."""
    n = len(distance)
    return Rows(
        different=np.arange(n) < different,
        distance=distance,
        share=np.full(n, 0.2),
        weight=np.ones(n),
        stratum=np.zeros(n, np.int64),
        label=np.full(n, -1),
        untimely=((np.arange(n) >= different) & (np.arange(n) < different + untimely)).astype(np.float64),
    )


def test_pairs_whose_time_nobody_has_show_strangers() -> None:
    """The few pairs that cannot be one person are of other moments than those that are compared, and less alike."""
    rng = np.random.default_rng(3)
    distance = np.concatenate([rng.normal(1.25, 0.05, 300), 1.3 - np.abs(rng.normal(0, 0.1, 6_000))])
    alone = strangers_of(rows_of(distance, 300, 0))
    both = strangers_of(rows_of(distance, 300, 3_000))
    assert both.forbidden == alone.forbidden == 300
    its = np.arange(6_300) >= 3_300
    share = float((both.z[its] < -3).mean())
    assert below(both.shape(0), -3.0) == pytest.approx(share, rel=0.3)
    assert below(alone.shape(0), -3.0) < share / 2


def test_each_kind_of_pairs_has_its_own_shape_as_far_as_it_is_known() -> None:
    rng = np.random.default_rng(4)
    kind = (np.arange(8_000) >= 4_000).astype(np.int64)
    distance = np.where(kind, rng.normal(1.3, 0.1, 8_000), 1.3 - np.abs(rng.normal(0, 0.1, 8_000)))
    rows = replace(rows_of(distance, 8_000, 0), stratum=kind)
    enough = strangers_of(replace(rows, different=np.arange(8_000) % 2 == 0))
    assert (enough.z[kind == 0] < -2.5).mean() > 5 * (enough.z[kind == 1] < -2.5).mean()
    assert below(enough.shape(0), -2.5) > 1.5 * below(enough.shape(1), -2.5)
    one = strangers_of(replace(rows, different=(np.arange(8_000) % 2 == 0) & (kind == 0)))
    assert below(one.shape(1), -2.5) == pytest.approx(below(one.shape(0), -2.5))


def test_strangers_at_one_camera_are_nearer_than_what_is_known_of_two_shows() -> None:
    """With the density of two cameras a real street had a thousand pairs of one camera that looked like one person."""
    rng = np.random.default_rng(5)
    n = 20_000
    one_camera = np.arange(n) % 2 == 1
    away = rng.laplace(0, 0.06, n)
    away = np.where(one_camera & (away < 0), 1.4 * away, away)
    rows = replace(rows_of(1.3 + away, 0, 0), stratum=one_camera.astype(np.int64), different=np.arange(n) % 4 == 0)
    found = strangers_of(rows)
    z = found.z[one_camera]
    two = found.shape(0)(z)
    own = found.log_density[one_camera]
    own = own - np.median((own - two)[np.abs(z) < 0.5])
    for low in (-4.0, -6.0):
        near = (z > low - 0.5) & (z < low + 0.5)
        real = np.log(
            near.sum() / (np.abs(z) < 0.5).sum() / (np.exp(two[near]).mean() / np.exp(two[np.abs(z) < 0.5]).mean())
        )
        assert float((own - two)[near].mean()) == pytest.approx(real, abs=0.6) and real > 0.5
