import math
from itertools import pairwise

import pytest

from pipeline.ingest.frame_clock import HELD, FrameClock, NoTimesError


def run(stamps: list[float]) -> tuple[list[float], FrameClock[int]]:
    """The clock's times, in the order of the stamps, and the clock."""
    clock: FrameClock[int] = FrameClock()
    found = [pair for place, stamp in enumerate(stamps) for pair in clock.push(stamp, place)]
    found += clock.flush()
    assert [place for _, place in found] == list(range(len(stamps)))  # every frame once, in order
    times = [seconds for seconds, _ in found]
    assert all(earlier < later for earlier, later in pairwise(times))
    return times, clock


def evenly(count: int, step: float, start: float = 0.0) -> list[float]:
    return [start + step * number for number in range(count)]


def test_good_stamps_stay_as_they_are() -> None:
    for stamps in ([0.0], evenly(50, 0.04), [0.0, 0.1, 0.15, 2.0, 9.0, 9.01], evenly(9, 60.0), evenly(9, 0.1, 0.066)):
        times, clock = run(stamps)
        assert times == pytest.approx(stamps) and clock.bridged == 0 and clock.first_bridged_s is None


def test_a_recording_cut_to_another_goes_on_one_interval_later() -> None:
    times, clock = run(evenly(100, 0.2) + evenly(250, 0.04, -0.16))
    assert times == pytest.approx(evenly(100, 0.2) + evenly(250, 0.04, 20.0))
    assert clock.bridged == 1 and clock.first_bridged_s == pytest.approx(19.8)
    times, clock = run(evenly(20, 0.1) + evenly(20, 0.1) + evenly(3, 0.1))
    assert times == pytest.approx(evenly(43, 0.1)) and clock.bridged == 2


@pytest.mark.parametrize(
    "wrong",
    [
        [0.4],  # a repeat
        [0.2],  # a step back
        [-1e6],
        [1e6],
        [1e300],
        [math.inf],
        [math.nan],
        [0.4, 0.4, 0.4],
        [0.1, 0.2, 0.3],
        [1e5, 1e5 + 0.1],
        [math.nan] * HELD,
    ],
)
def test_wrong_stamps_take_the_place_between_their_neighbors(wrong: list[float]) -> None:
    stamps = evenly(30, 0.1)
    stamps[5 : 5 + len(wrong)] = wrong
    times, clock = run(stamps)
    assert times == pytest.approx(evenly(30, 0.1))
    assert clock.bridged == len(wrong) and clock.first_bridged_s == pytest.approx(0.4)


def test_a_gap_that_later_stamps_confirm_is_kept() -> None:
    stamps = evenly(10, 0.1) + evenly(10, 0.1, 3600.0)
    times, clock = run(stamps)
    assert times == pytest.approx(stamps) and clock.bridged == 0
    times, clock = run(evenly(10, 0.1) + evenly(10, 0.1, 1e12))  # nobody waits that long
    assert times[-1] == pytest.approx(1.9) and clock.bridged == 10


def test_a_wrong_stamp_at_either_end() -> None:
    assert run([0.0, 0.1, 0.2, 0.0])[0] == pytest.approx(evenly(4, 0.1))
    assert run([0.0, 0.1, 0.2, 1e6])[0] == pytest.approx(evenly(4, 0.1))
    assert run([-0.16, -0.12, -0.08])[0] == pytest.approx(evenly(3, 0.04))
    assert run([math.nan, 0.1, 0.2])[0] == pytest.approx(evenly(3, 0.1))
    assert run([1e12, *evenly(9, 0.1, 1e12 + 0.1)])[0] == pytest.approx(evenly(10, 0.1), abs=1e-3)


def test_stamps_that_never_rise_are_no_times() -> None:
    for stamps in ([0.0] * (HELD + 2), [0.0, 0.0], [math.nan] * 9):
        with pytest.raises(NoTimesError):
            run(stamps)


def test_stamps_that_stop_rising_are_spaced_by_the_last_interval() -> None:
    times, clock = run([*evenly(10, 0.1), *[0.9] * 20])
    assert times == pytest.approx(evenly(30, 0.1)) and clock.bridged == 20
