"""The lowest operating point that keeps the stated rate, found in few tries."""

import numpy as np
import pytest

from pipeline.calibration.unlabeled.operating_point import lowest_kept
from schemas.arrays import Floats

POINTS = tuple(half / 2 for half in range(-1, 13))


@pytest.mark.parametrize("least", [-1.0, -0.5, 0.4, 1.0, 3.2, 6.0, 9.0])
@pytest.mark.parametrize("fewer", [0.0, 0.6, -0.6])
def test_it_is_the_one_that_trying_all_of_them_finds_in_a_few_tries(least: float, fewer: float) -> None:
    """A higher point also loses, or gains, joins above it: its joins are not a part of those of a lower one."""
    tried: list[float] = []

    def joins_at(point: float) -> Floats:
        tried.append(point)
        return np.arange(point, 8.0, 0.05) + fewer * (point > POINTS[0])

    def keeps(joins: Floats) -> bool:
        return not len(joins) or bool(joins.min() >= least)

    found = lowest_kept(POINTS, joins_at, keeps)
    several = tried.copy()
    assert found == next((point for point in POINTS if keeps(joins_at(point))), POINTS[-1])
    assert len(several) == len(set(several)) <= 5


def test_where_none_keeps_it_the_highest_is_taken() -> None:
    assert lowest_kept(POINTS, lambda point: np.full(3, point), lambda joins: False) == POINTS[-1]
