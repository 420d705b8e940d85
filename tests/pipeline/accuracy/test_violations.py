from itertools import combinations

import numpy as np
import pytest

from pipeline.accuracy import violations
from pipeline.accuracy.violations import forbidden_pairs


@pytest.mark.parametrize("block", [3, 2_000_000])
def test_forbidden_pairs_are_those_of_all_pairs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(violations, "_PAIRS", block)
    rng = np.random.default_rng(block)
    n, cameras = 300, 6
    min_gap = rng.uniform(-2, 40, (cameras, cameras))
    min_gap = (min_gap + min_gap.T) / 2
    min_gap[0, 1] = min_gap[1, 0] = -np.inf
    np.fill_diagonal(min_gap, 0.0)
    group, camera, start = rng.integers(0, 20, n) - 5, rng.integers(0, cameras, n), rng.integers(0, 900, n)
    end = start + rng.integers(0, 60, n)
    expected = 0
    for i, j in combinations(range(n), 2):
        gap = max(start[i], start[j]) - min(end[i], end[j])
        expected += bool(group[i] == group[j] and gap < min_gap[camera[i], camera[j]])
    assert expected > 100
    assert forbidden_pairs(group, camera, start, end, lambda a, b: min_gap[a, b], min_gap.max()) == expected
    nothing = np.empty(0, np.int64)
    assert forbidden_pairs(nothing, nothing, nothing, nothing, lambda a, b: min_gap[a, b], 40.0) == 0
