"""A time axis with long pauses shortened, so that tracklets minutes or days apart fit on one line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from schemas.times import from_us, to_us

#: A pause longer than this share of the whole time is drawn at half this share, and marked.
_LONG = 0.24
#: Width of a tick's label, pixels.
_LABEL = 84.0
_SECOND = 1_000_000
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True)
class Pause:
    """A shortened pause, drawn from `left` to `right` pixels."""

    left: float
    right: float
    seconds: float


@dataclass(frozen=True)
class Axis:
    starts_us: Sequence[int]  # of the pieces between shortened pauses, microseconds UTC
    ends_us: Sequence[int]
    starts: Sequence[float]  # where each piece begins, pixels
    scale: float  # pixels a microsecond
    ticks: Sequence[Tick]
    pauses: Sequence[Pause]

    def x(self, us: int) -> float:
        """Pixels of a time in microseconds UTC; a time within a shortened pause lies at the pause's start."""
        piece = max((i for i, start in enumerate(self.starts_us) if start <= us), default=0)
        inside = min(max(us, self.starts_us[piece]), self.ends_us[piece]) - self.starts_us[piece]
        return self.starts[piece] + inside * self.scale

    def end_x(self, us: int) -> float:
        """As `x`, but a time within a shortened pause lies at the pause's end."""
        piece = max((i for i, start in enumerate(self.starts_us) if start <= us), default=0)
        if us > self.ends_us[piece] and piece + 1 < len(self.starts):
            return self.starts[piece + 1]
        return self.x(us)


def time_axis(spans_us: Sequence[tuple[int, int]], left: float, right: float, zone: ZoneInfo) -> Axis:
    """An axis from `left` to `right` pixels over spans (start, end) in microseconds UTC; at least one."""
    pieces = _pieces(sorted(spans_us))
    pause_us = (pieces[-1][1] - pieces[0][0]) * _LONG / 2
    drawn = sum(end - start for start, end in pieces) + pause_us * (len(pieces) - 1)
    scale = (right - left) / drawn
    starts, at = [], left
    for start, end in pieces:
        starts.append(at)
        at += (end - start) * scale + pause_us * scale
    ticks: list[Tick] = []
    pauses = []
    for i, (start, end) in enumerate(pieces):
        ticks += _ticks(start, end, starts[i], scale, zone)
        if i:
            before = pieces[i - 1][1]
            begin = starts[i - 1] + (before - pieces[i - 1][0]) * scale
            pauses.append(Pause(begin, starts[i], (start - before) / _SECOND))
    ticks = [tick for tick in ticks if all(abs(tick.x - (p.left + p.right) / 2) > _LABEL for p in pauses)]
    return Axis([start for start, _ in pieces], [end for _, end in pieces], starts, scale, ticks, pauses)


def _pieces(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins spans with no long pause between them into pieces, each with a margin before and after it."""
    first, last = spans[0][0], max(end for _, end in spans)
    room = max(2 * _SECOND, round((last - first) * 0.02))
    long_us = max((last - first) * _LONG, 30 * _SECOND)
    pieces: list[tuple[int, int]] = []
    for start, end in spans:
        if pieces and start - pieces[-1][1] <= long_us:
            pieces[-1] = pieces[-1][0], max(pieces[-1][1], end)
        else:
            pieces.append((start, end))
    return [(start - room, end + room) for start, end in pieces]


def _ticks(start_us: int, end_us: int, left: float, scale: float, zone: ZoneInfo) -> list[Tick]:
    """Ticks at round local times within a piece, or one in its middle."""
    step = next((s for s in _STEPS_S if s * _SECOND * scale >= _LABEL), _STEPS_S[-1]) * _SECOND
    while step * scale < _LABEL:
        step *= 2
    offset = from_us(max(start_us, 0)).astimezone(zone).utcoffset()
    shift = 0 if offset is None else round(offset.total_seconds()) * _SECOND
    first = -(-(start_us + shift) // step) * step - shift
    round_times = range(first, end_us + 1, step)
    moments = round_times or [(start_us + end_us) // 2]
    several_days = step >= 86_400 * _SECOND
    form = "%-d %b" if several_days else "%H:%M" if step >= 60 * _SECOND and round_times else "%H:%M:%S"
    ticks = [Tick(left + (us - start_us) * scale, local(from_us(us), zone, form)) for us in moments]
    return [tick for tick in ticks if tick.x >= left]


def local(moment: datetime, zone: ZoneInfo, form: str) -> str:
    return moment.astimezone(zone).strftime(form)


def span_us(first: datetime, last: datetime) -> tuple[int, int]:
    return to_us(first), to_us(last)
