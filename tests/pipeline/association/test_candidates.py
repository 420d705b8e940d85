import numpy as np
import pytest

from pipeline.association.candidates import _nearest, shortlist
from pipeline.association.geometry import time_gaps
from pipeline.association.nodes import Nodes
from tests.helpers.gates import GEOMETRY, nodes


def test_nearest_equals_a_stable_sort() -> None:
    distance = np.random.default_rng(0).integers(0, 6, (40, 30)).astype(float)  # many ties
    for k in (1, 7, 30):
        np.testing.assert_array_equal(_nearest(distance, k), np.argsort(distance, axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("k", [1, 3, 50])
def test_shortlist_equals_a_slow_one(k: int) -> None:
    rng = np.random.default_rng(1)
    found = nodes(*[[(int(rng.integers(4)), t, t + 5)] for t in rng.uniform(0, 300, 40)])
    found.mean[:] = rng.normal(size=found.mean.shape)
    found.fresh[::3] = False
    expected: set[tuple[int, int]] = set()
    for i in np.flatnonzero(found.fresh).tolist():
        cosine = found.mean @ found.mean[i] / np.linalg.norm(found.mean, axis=1)
        possible = [j for j in np.argsort(-cosine).tolist() if j != i and not _impossible(found, i, j)]
        expected |= {(min(i, j), max(i, j)) for j in possible[:k]}
    left, right, gaps = shortlist(found, GEOMETRY, k)
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    for name, column in vars(time_gaps(found, GEOMETRY, left, right)).items():
        np.testing.assert_array_equal(column, getattr(gaps, name))
    assert pairs <= expected
    # Only the nearest 4 k are checked, so a distant possible one may be missed.
    assert len(pairs) >= 0.9 * len(expected)


def _impossible(found: Nodes, i: int, j: int) -> bool:
    return bool(time_gaps(found, GEOMETRY, np.array([i]), np.array([j])).impossible[0])


def test_pairs_beyond_the_horizon_are_not_compared() -> None:
    late = GEOMETRY.horizon_us / 1e6 + 50
    found = nodes(*[[(0, t, t + 5)] for t in (0.0, 20.0, 40.0, late, late + 20.0)])
    found.mean[:] = np.random.default_rng(2).normal(size=found.mean.shape)
    found.mean[4] = found.mean[0]  # the nearest of all, but beyond the horizon
    left, right, gaps = shortlist(found, GEOMETRY, 1)
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    assert (0, 4) not in pairs and (3, 4) in pairs
    assert (gaps.gap_us <= GEOMETRY.horizon_us).all()
