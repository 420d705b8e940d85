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


_UNITS = text(
    "SELECT u.code, u.name, coalesce(c.crops, 0) AS crops, coalesce(n.identities, 0) AS identities, "
    "coalesce(d.joins, 0) AS joins, coalesce(d.reviews, 0) AS reviews, coalesce(d.apart, 0) AS apart "
    "FROM urban_unit u "
    "LEFT JOIN (SELECT camera, count(*) AS crops FROM crop WHERE withdrawn_at IS NULL GROUP BY 1) AS c "
    "ON c.camera = u.code "
    "LEFT JOIN (SELECT unit, count(*) AS identities FROM identity_now GROUP BY 1) AS n ON n.unit = u.code "
    "LEFT JOIN (SELECT r.unit, count(*) FILTER (WHERE verdict = 'join') AS joins, "
    "  count(*) FILTER (WHERE verdict = 'review') AS reviews, count(*) FILTER (WHERE verdict = 'apart') AS apart "
    "  FROM match_decision m JOIN run r ON r.id = m.run_id WHERE r.superseded_at IS NULL GROUP BY 1) AS d "
    "ON d.unit = u.code WHERE u.code = :district OR starts_with(u.code, :district || '/') "
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
