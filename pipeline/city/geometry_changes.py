"""Which units' decisions a change of the city concerns: those between cameras that were moved, linked or cut off.

Each unit has a mark, `urban_unit.geometry`, which enters the keys of its runs (`pipeline/resolve/runs.py`): the digest
of the city with which its geometry changed last. So units that a change does not concern keep their runs, and a camera
that is new, or has no crops yet, changes no earlier decision.
"""

from collections.abc import Iterator, Set

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.store.locks import lock_crops
from schemas.city_file import City
from schemas.levels import parent_of

_SEEING = text("SELECT code FROM urban_unit WHERE level = 'camera' AND EXISTS (SELECT FROM crop WHERE camera = code)")


def links(city: City) -> set[tuple[str, str, str, float]]:
    """Overlaps and walks, each once: (kind, one unit, the other, shortest walk in seconds or 0)."""
    overlaps = {
        ("overlap", unit.code, other, 0.0) for unit in city.units for other in unit.overlaps if unit.code < other
    }
    return overlaps | {("walk", walk.from_, walk.to, walk.shortest_s) for walk in city.walks}


def changed_geometry(old: City, new: City, seeing: Set[str] | None = None) -> set[str]:
    """The units of both cities, none of them a camera, in which gates or walking times between known cameras changed.

    These are all units above a camera whose position or clock uncertainty changed, and above two that an overlap or a
    walk between them changed. Both cities in canonical form. `seeing`: the cameras that have crops; what concerns
    others has decided nothing. None: all.
    """
    before, after = ({unit.code: unit for unit in city.units} for city in (old, new))
    known = before.keys() & after.keys()
    below = {
        code
        for code in known
        if (before[code].position, before[code].clock_uncertainty_s)
        != (after[code].position, after[code].clock_uncertainty_s)
    }
    changed_links = [link for link in links(old) ^ links(new) if known.issuperset(link[1:3])]
    if seeing is not None:
        with_crops = {unit for camera in seeing for unit in (camera, *_above(camera))}
        below &= with_crops
        changed_links = [link for link in changed_links if with_crops.issuperset(link[1:3])]
    below |= {link[1] for link in changed_links}
    return {above for code in below for above in _above(code)}


def _above(code: str) -> Iterator[str]:
    """The codes of the units above."""
    above = parent_of(code)
    while above is not None:
        yield above
        above = parent_of(above)


def keep_geometry(connection: Connection, old: City, new: City, digest: bytes) -> set[str]:
    """Gives the units whose geometry changed another mark, and marks all their windows; returns the units.

    `digest`: of the new city. To be called in the transaction that writes the new city.
    """
    if not changed_geometry(old, new):
        return set()
    lock_crops(connection)  # so that none comes in, and is decided by the old city, from here on
    changed = changed_geometry(old, new, set(connection.scalars(_SEEING)))
    connection.execute(
        text("UPDATE urban_unit SET geometry = :digest WHERE code = ANY(:codes)"),
        {"digest": digest, "codes": sorted(changed)},
    )
    watermarks.mark_history(connection, changed)
    return changed
