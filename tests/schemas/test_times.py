from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from schemas.times import parse_time, period_text, to_us, utc_days

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [
        ("2026-01-01T08:03:12Z", "2026-01-01T08:03:20Z", "1 Jan 2026 09:03:12-09:03:20"),
        ("2026-01-01T08:03:12Z", "2026-01-01T08:03:12Z", "1 Jan 2026 09:03:12"),
        ("2026-07-01T21:59:50Z", "2026-07-01T22:00:10Z", "1 Jul 2026 23:59:50 - 2 Jul 2026 00:00:10"),
        ("2025-12-31T23:30:00Z", "2025-12-31T23:31:00Z", "1 Jan 2026 00:30:00-00:31:00"),
        ("2025-01-01T08:00:00Z", "2026-01-01T08:00:00Z", "1 Jan 2025 09:00:00 - 1 Jan 2026 09:00:00"),
        ("2026-10-25T00:50:00Z", "2026-10-25T01:10:00Z", "25 Oct 2026 02:50:00 CEST-02:10:00 CET"),
    ],
)
def test_a_period_is_written_in_the_zone_with_the_days_where_they_differ(first: str, last: str, text: str) -> None:
    start, end = parse_time(first), parse_time(last)
    assert period_text(start, end, BERLIN) == text
    assert period_text(start, end, BERLIN, dash="–") == text.replace("-", "–")


def test_the_day_can_be_left_out_where_both_times_share_it() -> None:
    start, end, next_day = (datetime(2026, 1, day, hour, tzinfo=BERLIN) for day, hour in ((1, 9), (1, 10), (2, 8)))
    assert period_text(start, end, BERLIN, dated=False) == "09:00:00-10:00:00"
    assert period_text(start, next_day, BERLIN, dated=False) == "1 Jan 2026 09:00:00 - 2 Jan 2026 08:00:00"


def test_utc_days_are_those_of_the_times() -> None:
    times = [
        to_us(parse_time(text)) for text in ("2026-01-01T23:59:59Z", "2026-01-02T00:30:00+01:00", "1970-01-01T00:00Z")
    ]
    assert utc_days(times) == {date(2026, 1, 1), date(1970, 1, 1)}
