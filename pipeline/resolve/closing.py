"""Which districts have closed windows to resolve: what `urban-reid up` asks every second.

A window closes when all sources that could still bring crops of it have gone past its end by the longest pause within a
passage. A source is a camera that is being looked at, up to its last frame, or a camera whose newest crop belongs to an
ingest that goes on, up to that crop. A source that stands still for GRACE_S holds nothing open; where none is left,
every window is closed.

Windows that are resolved already and get late crops wait until these have had time to come in. The clock decides when
a window is resolved, never how.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from pipeline.ingest.looks import WRITE_EVERY
from schemas.levels import Level, level_of
from schemas.parameters import ResolveParameters
from schemas.settings import AssociationSettings
from schemas.times import from_us, window_start

#: A source that has not moved for this long holds no window open.
GRACE_S = 30.0
#: Nor does one that is further behind the foremost, such as old recordings beside live cameras: its crops are late.
_FAR_BEHIND = timedelta(minutes=15)
#: Between a district's runs: where further windows have closed, and where late crops came for windows resolved before.
PAUSE_S, LATE_S = 5.0, 30.0
#: Crops of a frame that was looked at are in the store when the camera has gone on by this.
_WRITTEN_WITHIN = WRITE_EVERY + timedelta(seconds=1)
#: A run is followed by a pause of at least this many times its own length.
_REST = 1.0

_MARKS = text("SELECT unit, dirty_from, version FROM watermark")
_LOOKED_AT = text("SELECT camera, last_frame_at FROM camera_health WHERE state = 'up' AND last_frame_at IS NOT NULL")
# Untimed crops have all one time, and nothing follows from it.
_TAKEN_IN = text(
    "SELECT s.camera, c.captured_at FROM unnest(CAST(:cameras AS text[])) AS s (camera) CROSS JOIN LATERAL "
    "(SELECT captured_at, batch_id FROM crop WHERE camera = s.camera ORDER BY captured_at DESC LIMIT 1) AS c "
    "LEFT JOIN ingest_batch b ON b.id = c.batch_id WHERE b.ended_at IS NULL AND b.undone_at IS NULL"
)
_ANY_MODEL = text("SELECT EXISTS (SELECT FROM model WHERE in_use)")


@dataclass
class _Source:
    """A camera as it was seen last: what showed that it moves, and when that changed, by the steady clock."""

    sign: object
    moved_at: float


@dataclass
class _District:
    """The last run: up to which window, how long it took, and when it ended by the steady clock."""

    until: datetime | None
    seconds: float
    ended_at: float


class Closing:
    """Follows the marks and sources of a city from look to look; one process holds it."""

    def __init__(self, settings: AssociationSettings) -> None:
        self._settings = settings
        self._gap = timedelta(seconds=settings.passage_gap_s)
        self._sources: dict[str, _Source] = {}
        self._districts: dict[str, _District] = {}

    def look(self, connection: Connection, now: float) -> list[ResolveParameters]:
        """The resolves that are due, the district first that waits longest. `now`: seconds of time.monotonic."""
        marks = connection.execute(_MARKS).all()
        pending: dict[str, datetime] = {}
        for row in marks:
            if row.dirty_from is not None:
                district = row.unit.partition("/")[0]
                pending[district] = min(row.dirty_from, pending.get(district, row.dirty_from))
        if not pending or not connection.execute(_ANY_MODEL).scalar_one():
            return []
        looked_at: dict[str, datetime] = {row.camera: row.last_frame_at for row in connection.execute(_LOOKED_AT)}
        signs: dict[str, object] = {row.unit: row.version for row in marks if level_of(row.unit) is Level.CAMERA}
        moving = self._moving(signs | looked_at, now)
        reached = {camera: looked_at[camera] - _WRITTEN_WITHIN for camera in moving & looked_at.keys()}
        asked = {"cameras": sorted(moving - looked_at.keys())}
        reached |= {row.camera: row.captured_at for row in connection.execute(_TAKEN_IN, asked)}
        due = []
        for district, dirty_from in pending.items():
            until = self._closed_until(at for camera, at in reached.items() if camera.startswith(f"{district}/"))
            if (until is None or dirty_from < until) and self._has_rested(district, until, now):
                due.append(ResolveParameters(unit=district, to_time=until))
        return sorted(due, key=lambda one: self._districts[one.unit].ended_at if one.unit in self._districts else 0.0)

    def resolved(self, parameters: ResolveParameters, began: float, ended: float) -> None:
        """Takes note of a run that `look` asked for, however it ended. Times as `now` above."""
        self._districts[parameters.unit] = _District(parameters.to_time, ended - began, ended)

    def _moving(self, signs: dict[str, object], now: float) -> set[str]:
        for camera, sign in signs.items():
            source = self._sources.get(camera)
            if source is None or source.sign != sign:
                self._sources[camera] = _Source(sign, now)
        return {camera for camera in signs if now - self._sources[camera].moved_at <= GRACE_S}

    def _closed_until(self, reached: Iterable[datetime]) -> datetime | None:
        """The start of the first window that is open, given how far each moving source is; None: none is open."""
        times = list(reached)
        if not times:
            return None
        first = min(at for at in times if max(times) - at <= _FAR_BEHIND)
        return window_start(max(first - self._gap, from_us(0)), self._settings.window_s)

    def _has_rested(self, district: str, until: datetime | None, now: float) -> bool:
        last = self._districts.get(district)
        if last is None:
            return True
        further = until is None or (last.until is not None and until > last.until)
        return now - last.ended_at >= max(PAUSE_S if further else LATE_S, _REST * last.seconds)
