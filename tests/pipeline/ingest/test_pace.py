from datetime import timedelta

import numpy as np
import pytest

from pipeline.ingest.pace import Pace


@pytest.mark.parametrize("rate", [10, 12, 15, 24, 25, 29.97, 30, 50, 60, 144])
def test_ten_a_second_are_ten_at_any_rate(rate: float) -> None:
    pace = Pace(10)
    looks = [pace.is_due(timedelta(seconds=number / rate)) for number in range(round(60 * rate))]
    assert looks[0] and 590 <= sum(looks) <= 601


def test_all_frames_of_a_slower_camera_are_looked_at() -> None:
    pace = Pace(10)
    assert all(pace.is_due(timedelta(seconds=number / 4)) for number in range(100))


def test_frames_that_come_unevenly_are_looked_at_as_often() -> None:
    late = np.random.default_rng(1).uniform(0, 0.06, 600)
    pace = Pace(5)
    looks = [pace.is_due(timedelta(seconds=number / 10 + late[number])) for number in range(600)]
    assert 290 <= sum(looks) <= 301


def test_after_a_gap_the_looks_do_not_catch_up() -> None:
    pace = Pace(2)
    assert pace.is_due(timedelta())
    assert pace.is_due(timedelta(seconds=60))
    assert [pace.is_due(timedelta(seconds=60 + number / 10)) for number in range(1, 11)].count(True) == 2
