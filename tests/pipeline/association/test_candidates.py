import numpy as np
import pytest

from pipeline.association.candidates import _nearest, shortlist
from pipeline.association.geometry import closest
from pipeline.association.nodes import Nodes
from tests.helpers.gates import WORLD, nodes


def test_nearest_is_a_stable_sort() -> None:
    distance = np.random.default_rng(0).integers(0, 6, (40, 30)).astype(float)  # many ties
    for k in (1, 7, 30):
        np.testing.assert_array_equal(_nearest(distance, k), np.argsort(distance, axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("k", [1, 3, 50])
def test_shortlist_against_a_slow_one(k: int) -> None:
    rng = np.random.default_rng(1)
    found = nodes(*[[(int(rng.integers(4)), t, t + 5)] for t in rng.uniform(0, 300, 40)])
    found.mean[:] = rng.normal(size=found.mean.shape)
    found.fresh[::3] = False
    expected = set()
    for i in np.flatnonzero(found.fresh):
        cosine = found.mean @ found.mean[i] / np.linalg.norm(found.mean, axis=1)
        possible = [j for j in np.argsort(-cosine) if j != i and not _impossible(found, i, j)]
        expected |= {(min(i, j), max(i, j)) for j in possible[:k]}
    left, right, times = shortlist(found, WORLD, k)
    got = set(zip(left.tolist(), right.tolist(), strict=True))
    for name, column in vars(closest(found, WORLD, left, right)).items():
        np.testing.assert_array_equal(column, getattr(times, name))
    assert got <= {(int(i), int(j)) for i, j in expected}
    # The gates act on the nearest 4 k, so with few candidates left a distant possible one may be missed.
    assert len(got) >= 0.9 * len(expected)


def _impossible(found: Nodes, i: int, j: int) -> bool:
    return bool(closest(found, WORLD, np.array([i]), np.array([j])).impossible[0])


def test_what_lies_beyond_the_horizon_is_not_compared_however_near_it_looks() -> None:
    late = WORLD.horizon_us / 1e6 + 50
    found = nodes(*[[(0, t, t + 5)] for t in (0.0, 20.0, 40.0, late, late + 20.0)])
    found.mean[:] = np.random.default_rng(2).normal(size=found.mean.shape)
    found.mean[4] = found.mean[0]  # the nearest of all, a horizon away
    left, right, times = shortlist(found, WORLD, 1)
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    assert (0, 4) not in pairs and (3, 4) in pairs
    assert (times.gap_us <= WORLD.horizon_us).all()
