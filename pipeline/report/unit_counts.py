"""Counts of crops, tracklets, identities and decisions of each unit of the district."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, text

from schemas.levels import Level, is_within, level_of, parent_of


@dataclass(frozen=True)
class UnitCounts:
    """A unit's own identities and decisions, and the crops and tracklets of all cameras below it."""

    code: str
    name: str
    crops: int
    tracklets: int
    identities: int  # at a camera its tracklets
    joins: int
    reviews: int
    apart: int

    @property
    def level(self) -> Level:
        return level_of(self.code)

    @property
    def parent(self) -> str | None:
        return parent_of(self.code)


# Each count goes along an index alone. Of identities it counts all names that a unit ever gave, without those that no
# version holds any more: such a name has a version that was decided again, or one that is retired.
_UNITS = text(
    "WITH unit AS (SELECT code, name FROM urban_unit WHERE code = :district OR starts_with(code, :district || '/')), "
    "named AS (SELECT unit, count(*) AS many FROM (SELECT DISTINCT unit, persistent_id FROM identity) AS name "
    "  GROUP BY 1), "
    "doubtful AS (SELECT i.unit, i.persistent_id FROM run r JOIN identity i ON i.run_id = r.id "
    "  WHERE r.superseded_at IS NOT NULL UNION SELECT unit, persistent_id FROM identity WHERE retired), "
    "gone AS (SELECT d.unit, count(*) AS many FROM doubtful d WHERE NOT EXISTS (SELECT FROM identity_now n "
    "  WHERE n.unit = d.unit AND n.persistent_id = d.persistent_id) GROUP BY 1), "
    "decided AS (SELECT r.unit, count(*) FILTER (WHERE verdict = 'join') AS joins, "
    "  count(*) FILTER (WHERE verdict = 'review') AS reviews, count(*) FILTER (WHERE verdict = 'apart') AS apart "
    "  FROM match_decision m JOIN run r ON r.id = m.run_id WHERE r.superseded_at IS NULL GROUP BY 1) "
    "SELECT u.code, u.name, (SELECT count(*) FROM crop WHERE camera = u.code) "
    "  - (SELECT count(*) FROM crop WHERE camera = u.code AND withdrawn_at IS NOT NULL) AS crops, "
    "coalesce(named.many, 0) - coalesce(gone.many, 0) AS identities, coalesce(d.joins, 0) AS joins, "
    "coalesce(d.reviews, 0) AS reviews, coalesce(d.apart, 0) AS apart FROM unit u "
    "LEFT JOIN named ON named.unit = u.code LEFT JOIN gone ON gone.unit = u.code "
    "LEFT JOIN decided d ON d.unit = u.code "
    'ORDER BY u.code COLLATE "C"'
)


def read_unit_counts(connection: Connection, district: str) -> list[UnitCounts]:
    """The district and all units below it, each before its children."""
    own = [UnitCounts(tracklets=0, **row._mapping) for row in connection.execute(_UNITS, {"district": district})]
    cameras = [unit for unit in own if unit.level is Level.CAMERA]
    summed = []
    for unit in own:
        below = [camera for camera in cameras if is_within(camera.code, unit.code)]
        tracklets = sum(camera.identities for camera in below)
        summed.append(replace(unit, crops=sum(camera.crops for camera in below), tracklets=tracklets))
    return summed
