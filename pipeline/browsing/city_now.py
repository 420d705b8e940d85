"""How the city stands now, in counts: what the console's first page shows. It names nobody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from pipeline.city.lag import Lag, resolve_lag
from pipeline.report.unit_counts import UnitCounts, read_unit_counts
from schemas.levels import Level, level_of

#: Who was seen in the last so many minutes counts as present.
PRESENT = timedelta(minutes=15)
#: Ways between places are counted over the last day of the city's data, of at most so many people.
_WAYS_OF, _WAYS_PEOPLE = timedelta(hours=24), 20_000


@dataclass(frozen=True)
class Sight:
    """Of a unit: how many of its people were seen in the last PRESENT, and when the last of all was."""

    present: int = 0
    last_seen: datetime | None = None


@dataclass(frozen=True)
class CityNow:
    """`windows`: the end of the last window that each district has resolved. `ways`: people who went from one building
    to another, by (from, to)."""

    at: datetime
    units: Sequence[UnitCounts]
    sights: Mapping[str, Sight]
    windows: Mapping[str, datetime]
    waiting: int  # units with windows that are not resolved yet
    lag: Lag
    ways: Mapping[tuple[str, str], int]

    def of(self, level: Level) -> Sequence[UnitCounts]:
        return [unit for unit in self.units if unit.level == level]

    def sight(self, unit: str) -> Sight:
        return self.sights.get(unit, Sight())

    @property
    def people(self) -> int:
        return sum(unit.identities for unit in self.of(Level.DISTRICT))

    @property
    def present(self) -> int:
        return sum(self.sight(unit.code).present for unit in self.of(Level.DISTRICT))

    @property
    def pictures(self) -> int:
        return sum(unit.crops for unit in self.of(Level.DISTRICT))

    @property
    def reviews(self) -> int:
        return sum(unit.reviews for unit in self.units if unit.level is not Level.CAMERA)


_SIGHTS = text(
    "SELECT unit, max(last_seen) AS last_seen, count(*) FILTER (WHERE last_seen > :since) AS present "
    "FROM identity_now WHERE timed GROUP BY unit"
)
_WINDOWS = text(
    "SELECT unit, max(window_end) AS ends FROM run WHERE level = 'district' AND superseded_at IS NULL GROUP BY unit"
)
_WAITING = text("SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL")
# A person's passages in order of time, where they lie in different buildings.
_WAYS = text(
    "WITH seen AS (SELECT persistent_id, tracklets FROM identity_now WHERE level = 'district' AND timed "
    "  AND last_seen > :since ORDER BY last_seen DESC LIMIT :most), "
    "step AS (SELECT u.parent AS here, lag(u.parent) OVER (PARTITION BY s.persistent_id ORDER BY t.first_seen, t.id) "
    "  AS before FROM seen s CROSS JOIN unnest(s.tracklets) AS b (id) JOIN identity t ON t.id = b.id "
    "  JOIN urban_unit u ON u.code = t.unit) "
    "SELECT before, here, count(*) AS people FROM step WHERE before <> here GROUP BY 1, 2"
)


def read_city_now(connection: Connection, codes: Sequence[str], now: datetime) -> CityNow:
    """Counts of the whole city, whose units have these codes. It reads all identities and crops once."""
    districts = [code for code in codes if level_of(code) is Level.DISTRICT]
    units = [unit for district in districts for unit in read_unit_counts(connection, district)]
    rows = connection.execute(_SIGHTS, {"since": now - PRESENT})
    sights = {row.unit: Sight(row.present, row.last_seen) for row in rows}
    latest = max((sight.last_seen for sight in sights.values() if sight.last_seen), default=now)
    asked = {"since": latest - _WAYS_OF, "most": _WAYS_PEOPLE}
    return CityNow(
        at=now,
        units=units,
        sights=sights,
        windows={row.unit: row.ends for row in connection.execute(_WINDOWS)},
        waiting=connection.execute(_WAITING).scalar_one(),
        lag=resolve_lag(connection),
        ways={(row.before, row.here): row.people for row in connection.execute(_WAYS, asked)},
    )
