"""Searches of some cameras or places, of some hours of the day, of all but some people: which identities count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
from sqlalchemy import Connection, text

from pipeline.search.transit import Passages
from schemas.arrays import Bools, Ints
from schemas.levels import is_within
from schemas.parameters import Period, SearchParameters
from schemas.times import to_us

_HOUR_US = 3_600_000_000
_TRACKLETS = text(
    "SELECT DISTINCT m.identity_id FROM crop c JOIN identity_member m ON m.crop_id = c.id WHERE c.key = ANY(:keys)"
)


@dataclass(frozen=True)
class Narrowing:
    """An identity counts if one of its passages is like this, and none holds a crop of somebody whom it is not."""

    places: tuple[str, ...]  # unit codes; empty: anywhere
    hours: tuple[time, time] | None  # of the day in the city's zone, over midnight where the second is earlier
    zone: ZoneInfo
    from_us: int | None  # the period
    to_us: int | None
    others: tuple[int, ...] = ()  # ids of the tracklets, all versions, of crops of whom it is not

    @classmethod
    def of(cls, connection: Connection, parameters: SearchParameters, zone: str) -> "Narrowing | None":
        """None where every identity of the period counts."""
        if not parameters.places and parameters.day_from is None and not parameters.unlike:
            return None
        keys = [bytes.fromhex(key) for key in parameters.unlike]
        others = tuple(connection.scalars(_TRACKLETS, {"keys": keys})) if keys else ()
        hours = None
        if parameters.day_from is not None and parameters.day_to is not None:
            hours = (parameters.day_from, parameters.day_to)
        period = cls.of_period(parameters, zone)
        return replace(period, places=parameters.places, hours=hours, others=others)

    @classmethod
    def of_period(cls, period: Period, zone: str) -> "Narrowing":
        """Every passage of the period counts."""
        start, end = (None if at is None else to_us(at) for at in (period.from_time, period.to_time))
        return cls((), None, ZoneInfo(zone), start, end)

    def passages(self, passages: Passages) -> Bools:
        """(s,) The passages that count."""
        counts = np.array([self._is_within(code) for code in passages.codes], dtype=bool)[passages.camera]
        start, end = passages.span_us
        if self.hours is not None:
            counts &= passages.has_time & (self._in_hours(start) | self._in_hours(end))
        if self.from_us is not None:
            counts &= passages.has_time & (end >= self.from_us)
        if self.to_us is not None:
            counts &= passages.has_time & (start < self.to_us)
        return counts

    def identities(self, passages: Passages) -> Bools:
        """(n,) The identities that count."""
        counts = self.passages(passages)
        owner, n = np.repeat(np.arange(len(passages.count)), passages.count), len(passages.count)
        found = np.bincount(owner, counts, n) > 0
        if self.others:
            found &= np.bincount(owner, np.isin(passages.tracklet, self.others), n) == 0
        return np.asarray(found, bool)

    @property
    def is_of_passages(self) -> bool:
        """Whether some passages of an identity that counts may not."""
        return bool(self.places) or self.hours is not None

    def shows(self, camera: str, at: datetime | None) -> bool:
        """Whether a crop is one of those that were looked for."""
        if not self._is_within(camera):
            return False
        return self.hours is None or (at is not None and bool(self._in_hours(np.array([to_us(at)]))[0]))

    def _is_within(self, camera: str) -> bool:
        return not self.places or any(is_within(camera, unit) for unit in self.places)

    def _in_hours(self, moment_us: Ints) -> Bools:
        """(s,) Whether these moments lie in the hours of the day."""
        assert self.hours is not None
        hour, place = np.unique(moment_us // _HOUR_US, return_inverse=True)
        local = (moment_us + np.array(self._offsets(hour.tolist()), np.int64)[place]) % (24 * _HOUR_US)
        begin, end = (_microseconds(at) for at in self.hours)
        if begin < end:
            return np.asarray((local >= begin) & (local < end), bool)
        return np.asarray((local >= begin) | (local < end), bool)

    def _offsets(self, hours: Sequence[int]) -> list[int]:
        """Of hours since 1970 UTC: the zone's difference to UTC, microseconds."""
        found = []
        for hour in hours:
            difference = datetime.fromtimestamp(hour * 3600, UTC).astimezone(self.zone).utcoffset()
            assert difference is not None
            found.append(int(difference.total_seconds() * 1_000_000))
        return found


def _microseconds(at: time) -> int:
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000 + at.microsecond
