from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.axis import time_axis
from schemas.times import to_us

BERLIN = ZoneInfo("Europe/Berlin")
START = to_us(datetime(2026, 1, 1, 8, tzinfo=UTC))
SECOND = 1_000_000
LEFT, RIGHT = 100.0, 1000.0

moments = st.lists(
    st.tuples(st.integers(0, 40 * 86_400), st.integers(0, 600)).map(lambda s: (START + s[0] * SECOND, s[1] * SECOND)),
    min_size=1,
    max_size=30,
)


@given(moments)
def test_later_times_lie_further_right_within_the_axis(found: list[tuple[int, int]]) -> None:
    spans = [(start, start + length) for start, length in found]
    axis = time_axis(spans, LEFT, RIGHT, BERLIN)
    ends = sorted(us for span in spans for us in span)
    places = [axis.x(us) for us in ends]
    assert all(LEFT <= x <= RIGHT + 1e-6 for x in places)
    assert all(a <= b for a, b in pairwise(places))
    assert all(LEFT - 1e-6 <= tick.x <= RIGHT + 1e-6 for tick in axis.ticks)
    for pause in axis.pauses:  # no span lies in a shortened pause
        assert not any(pause.left + 1e-6 < x < pause.right - 1e-6 for x in places)
        assert pause.seconds > 0


def test_a_long_pause_is_shortened_and_labeled() -> None:
    hours = 3600 * SECOND
    axis = time_axis([(START, START + 60 * SECOND), (START + 5 * hours, START + 5 * hours)], LEFT, RIGHT, BERLIN)
    (pause,) = axis.pauses
    assert pause.right - pause.left < (RIGHT - LEFT) * 0.9
    assert pause.seconds == pytest.approx(5 * 3600 - 60, rel=0.1)
    assert axis.x(START + 5 * hours) > pause.right


def test_a_single_round_time_is_written_like_the_others() -> None:
    minutes = 60 * SECOND
    axis = time_axis([(START, START + 20 * minutes), (START + 80 * minutes, START + 80 * minutes)], LEFT, RIGHT, BERLIN)
    assert [tick.label for tick in axis.ticks] == ["09:00", "09:05", "09:10", "09:15", "09:20", "10:20"]


def test_short_pauses_keep_their_length() -> None:
    axis = time_axis([(START + i * 60 * SECOND,) * 2 for i in range(10)], LEFT, RIGHT, BERLIN)
    assert not axis.pauses
    steps = [axis.x(START + (i + 1) * 60 * SECOND) - axis.x(START + i * 60 * SECOND) for i in range(9)]
    assert steps == pytest.approx([steps[0]] * 9)


@pytest.mark.parametrize(
    ("start", "length", "first", "number"),
    [
        (datetime(2026, 1, 1, 8, 0, 50, tzinfo=UTC), timedelta(minutes=20), "09:02", 10),
        (datetime(2026, 7, 1, 8, 0, tzinfo=UTC), timedelta(hours=5), "10:00", 10),
        (datetime(2026, 1, 1, 8, 0, 1, tzinfo=UTC), timedelta(seconds=20), "09:00:00", 10),
        (datetime(2026, 1, 1, 8, tzinfo=UTC), timedelta(days=8), "2 Jan", 8),
    ],
)
def test_ticks_are_round_times_of_the_city(start: datetime, length: timedelta, first: str, number: int) -> None:
    axis = time_axis([(to_us(start), to_us(start + length))], LEFT, RIGHT, BERLIN)
    assert axis.ticks[0].label == first
    assert number / 2 <= len(axis.ticks) <= number * 1.5
    assert all(b.x - a.x >= 80 for a, b in pairwise(axis.ticks))
