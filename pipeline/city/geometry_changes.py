"""Which units' decisions a change of the city concerns: those between cameras that were moved, linked or cut off.

Each unit has a mark, `urban_unit.geometry`, which enters the keys of its runs (`pipeline/resolve/runs.py`): the digest
of the city with which its geometry changed last. So units that a change does not concern keep their runs, and a camera
that is new, or has no crops yet, changes no earlier decision. Windows before the first crop of the cameras that a
change is about are not marked; resolved for another reason, they get a new key and the same decisions.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.store.locks import lock_crops
from schemas.city_file import City
from schemas.levels import parent_of
from schemas.times import EPOCH

_FIRST_CROPS = text(
    "SELECT code, first.at FROM urban_unit CROSS JOIN LATERAL "
    "(SELECT min(captured_at) AS at FROM crop WHERE camera = code) AS first "
    "WHERE level = 'camera' AND first.at IS NOT NULL"
)


def links(city: City) -> set[tuple[str, str, str, float]]:
    """Overlaps and walks, each once: (kind, one unit, the other, shortest walk in seconds or 0)."""
    overlaps = {
        ("overlap", unit.code, other, 0.0) for unit in city.units for other in unit.overlaps if unit.code < other
    }
    return overlaps | {("walk", walk.from_, walk.to, walk.shortest_s) for walk in city.walks}


def changed_geometry(old: City, new: City, first_crops: Mapping[str, datetime]) -> dict[str, datetime]:
    """The units of both cities, none of them a camera, in which gates or walking times between known cameras changed.

    These are all units above a camera whose position or clock uncertainty changed, and above two that an overlap or a
    walk between them changed; each with the moment of the first crop that is concerned. Both cities in canonical form.
    `first_crops`: of each camera that has crops; what concerns others has decided nothing.
    """
    before, after = ({unit.code: unit for unit in city.units} for city in (old, new))
    known = before.keys() & after.keys()
    first: dict[str, datetime] = {}
    for camera, moment in first_crops.items():
        for unit in (camera, *_above(camera)):
            first[unit] = min(moment, first.get(unit, moment))
    below = {
        code: first[code]
        for code in known & first.keys()
        if (before[code].position, before[code].clock_uncertainty_s)
        != (after[code].position, after[code].clock_uncertainty_s)
    }
    for _, one, other, _ in links(old) ^ links(new):
        if {one, other} <= known & first.keys():
            moment = max(first[one], first[other])
            below[one] = min(moment, below.get(one, moment))
    changed: dict[str, datetime] = {}
    for code, moment in below.items():
        for above in _above(code):
            changed[above] = min(moment, changed.get(above, moment))
    return changed


def _above(code: str) -> Iterator[str]:
    """The codes of the units above."""
    above = parent_of(code)
    while above is not None:
        yield above
        above = parent_of(above)


def keep_geometry(connection: Connection, old: City, new: City, digest: bytes) -> set[str]:
    """Gives the units whose geometry changed another mark, and marks their windows; returns the units.

    `digest`: of the new city. To be called in the transaction that writes the new city.
    """
    if not changed_geometry(old, new, dict.fromkeys((unit.code for unit in old.cameras()), EPOCH)):
        return set()
    lock_crops(connection)  # so that none comes in, and is decided by the old city, from here on
    first_crops = {row.code: row.at for row in connection.execute(_FIRST_CROPS)}
    changed = changed_geometry(old, new, first_crops)
    connection.execute(
        text("UPDATE urban_unit SET geometry = :digest WHERE code = ANY(:codes)"),
        {"digest": digest, "codes": sorted(changed)},
    )
    watermarks.mark_history(connection, changed)
    return set(changed)
