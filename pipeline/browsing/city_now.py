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
class Totals:
    """What takes seconds to count in a large city. `ways`: people who went from one building to another, by (from,
    to)."""

    at: datetime
    units: Sequence[UnitCounts]
    lag: Lag
    ways: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class CityNow:
    """`windows`: the end of the last window that each district has resolved."""

    totals: Totals
    sights: Mapping[str, Sight]
    windows: Mapping[str, datetime]
    waiting: int  # units with windows that are not resolved yet

    @property
    def at(self) -> datetime:
        """When the totals were counted."""
        return self.totals.at

    @property
    def units(self) -> Sequence[UnitCounts]:
        return self.totals.units

    @property
    def lag(self) -> Lag:
        return self.totals.lag

    @property
    def ways(self) -> Mapping[tuple[str, str], int]:
        return self.totals.ways

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


# Along the index of a unit's last sights, from its end.
_SIGHTS = text(
    "SELECT u.code, (SELECT n.last_seen FROM identity_now n WHERE n.unit = u.code AND n.timed "
    "  ORDER BY n.last_seen DESC LIMIT 1) AS last_seen, (SELECT count(*) FROM identity_now n "
    "  WHERE n.unit = u.code AND n.timed AND n.last_seen > :since) AS present FROM urban_unit u"
)
_WINDOWS = text(
    "SELECT unit, max(window_end) AS ends FROM run WHERE level = 'district' AND superseded_at IS NULL GROUP BY unit"
)
_WAITING = text("SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL")
# A person's passages in order of time, where they lie in different buildings.
_WAYS = text(
    "WITH seen AS (SELECT persistent_id, tracklets FROM identity_now WHERE unit = :district AND timed "
    "  AND last_seen > :since ORDER BY last_seen DESC LIMIT :most), "
    "step AS (SELECT u.parent AS here, lag(u.parent) OVER (PARTITION BY s.persistent_id ORDER BY t.first_seen, t.id) "
    "  AS before FROM seen s CROSS JOIN unnest(s.tracklets) AS b (id) JOIN identity t ON t.id = b.id "
    "  JOIN urban_unit u ON u.code = t.unit) "
    "SELECT before, here, count(*) AS people FROM step WHERE before <> here GROUP BY 1, 2"
)


def read_totals(connection: Connection, codes: Sequence[str], now: datetime) -> Totals:
    """Counts of the whole city, whose units have these codes. It goes along indexes of all identities and crops."""
    districts = [code for code in codes if level_of(code) is Level.DISTRICT]
    units = [unit for district in districts for unit in read_unit_counts(connection, district)]
    seen = [sight.last_seen for sight in _sights(connection, now).values() if sight.last_seen]
    asked = {"since": max(seen, default=now) - _WAYS_OF, "most": _WAYS_PEOPLE}
    ways = [row for district in districts for row in connection.execute(_WAYS, asked | {"district": district})]
    return Totals(now, units, resolve_lag(connection), {(row.before, row.here): row.people for row in ways})


def read_city_now(connection: Connection, totals: Totals, now: datetime) -> CityNow:
    """How the city stands, with totals that were counted before."""
    return CityNow(
        totals=totals,
        sights=_sights(connection, now),
        windows={row.unit: row.ends for row in connection.execute(_WINDOWS)},
        waiting=connection.execute(_WAITING).scalar_one(),
    )


def _sights(connection: Connection, now: datetime) -> Mapping[str, Sight]:
    rows = connection.execute(_SIGHTS, {"since": now - PRESENT})
    return {row.code: Sight(row.present, row.last_seen) for row in rows}
