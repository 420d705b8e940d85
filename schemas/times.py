"""Times: microseconds UTC, the fixed grid of windows [start, end), and periods as people read them."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo

from schemas.errors import InputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Value of `captured_at` for crops whose source gives no time; they are marked `timed = false`.
UNTIMED = EPOCH
_DAY_US = 86_400_000_000


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 UTC. Raises InputError without a time zone."""
    if moment.tzinfo is None:
        raise InputError(f"time {moment.isoformat()} has no zone: write 2026-01-01T08:00:00Z or +01:00")
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """The time that is `us` microseconds after 1970 UTC. Raises OverflowError beyond the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=us)


def parse_time(text: str) -> datetime:
    """An ISO 8601 time with a zone, in UTC. Raises InputError for any other text."""
    try:
        moment = datetime.fromisoformat(text)
        return from_us(to_us(moment))
    except (ValueError, OverflowError):  # such as a time that lies before the year 1 in UTC
        raise InputError(f"{text[:60]!r} is not a time: write 2026-01-01T08:00:00Z or +01:00") from None


def window_start(moment: datetime, window_s: int) -> datetime:
    """The start of the window that contains `moment`."""
    width = window_s * 1_000_000
    return from_us(to_us(moment) // width * width)


def utc_days(times_us: Iterable[int]) -> set[date]:
    """The UTC days of times in microseconds."""
    return {from_us(day * _DAY_US).date() for day in {us // _DAY_US for us in times_us}}


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"


def period_text(
    first: datetime,
    last: datetime,
    zone: tzinfo,
    *,
    dated: bool = True,
    dash: str = "-",
    day: Callable[[datetime], str] = _day,
) -> str:
    """A period as text, in the time of `zone`: `1 Jan 2026 09:03:12-09:03:20`, with both days if they differ.

    `dated` False omits the day if both times are on one day. If the clock changes in between, both times name their
    zone. day: writes the day of a time.
    """
    first, last = first.astimezone(zone), last.astimezone(zone)
    named = "" if first.utcoffset() == last.utcoffset() else " %Z"
    start, end = (f"{moment:%H:%M:%S{named}}" for moment in (first, last))
    if first.date() != last.date():
        return f"{day(first)} {start} {dash} {day(last)} {end}"
    return (f"{day(first)} " if dated else "") + (start if first == last else f"{start}{dash}{end}")
