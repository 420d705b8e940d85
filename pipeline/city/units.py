"""The city's units: read from the YAML file, stored, and read back.

A store holds one city. It may grow and change at any time; what its geometry (positions, clock uncertainties, overlaps,
walks) had decided is decided anew by the next resolve. Units that have crops stay, and so do their sources.
"""

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from pipeline.city.differences import differences
from pipeline.city.geometry_changes import keep_geometry, links
from pipeline.city.plain_yaml import Document, parse
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.city_file import City, Unit, Walk
from schemas.errors import CityError, InputError
from schemas.keys import content_hash
from schemas.levels import is_within
from schemas.validation import first_fault

MAX_FILE_BYTES = 5_000_000


def read_city_file(path: Path) -> City:
    """The city that a YAML file describes. Raises CityError with the file's name, line and column, and the unit."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CityError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise CityError(f"{path}: larger than {MAX_FILE_BYTES // 1_000_000} MB, which no city file is")
    try:
        document = parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise CityError(f"{path}: is not UTF-8 text") from None
    except InputError as error:
        raise CityError(f"{path}, {error}") from None
    if not isinstance(document.data, dict):
        raise CityError(f"{path}: is not a city; a city file begins with `timezone:` and `units:`")
    try:
        return City.model_validate(document.data, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise CityError(f"{path}, {_first_fault(error, document)}") from None


def _first_fault(error: ValidationError, document: Document) -> str:
    """One line for the fault that explains the others best: line and column, unit or walk, and what is wrong."""
    faults = error.errors(include_url=False)
    place, message = first_fault(error, City)
    unknown = next((fault["loc"] for fault in faults if fault["type"] == "extra_forbidden"), None)
    where = [document.place(unknown or place)]
    if len(place) > 1 and isinstance(place[1], int):
        kind, number = str(place[0]), place[1]
        entry = document.data[kind][number]
        code = entry.get("code") if isinstance(entry, dict) else None
        where.append(f"unit {str(code)[:80]}" if code else f"{kind.rstrip('s')} {number + 1}")
        place = place[2:]
    quotes = "; write it in quotes" if any(fault["type"] == "string_type" for fault in faults[:1]) else ""
    more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
    return f"{', '.join([*where, *(str(part) for part in place)])}: {message}{quotes}{more}"


def canonical(city: City) -> City:
    """The same city as `read_city` returns it: units by code and without feeds, overlaps on both sides, each walk
    once.

    Raises CityError if two walks between the same units differ.
    """
    overlaps: dict[str, set[str]] = {unit.code: set(unit.overlaps) for unit in city.units}
    for unit in city.units:
        for other in unit.overlaps:
            overlaps[other].add(unit.code)
    walks: dict[tuple[str, str], float] = {}
    for walk in city.walks:
        ends = min(walk.from_, walk.to), max(walk.from_, walk.to)
        if walks.setdefault(ends, walk.shortest_s) != walk.shortest_s:
            raise CityError(f"walk {ends[0]} -> {ends[1]} is there twice with different times; a walk counts both ways")
    units = [
        unit.model_copy(update={"overlaps": tuple(sorted(overlaps[unit.code])), "feed": None}) for unit in city.units
    ]
    return City(
        timezone=city.timezone,
        units=tuple(sorted(units, key=lambda unit: unit.code)),
        walks=tuple(Walk.model_validate({"from": a, "to": b, "shortest_s": s}) for (a, b), s in sorted(walks.items())),
    )


def city_digest(city: City) -> bytes:
    """SHA-256 of a city in canonical form. Feeds are no part of it."""
    return content_hash("city", [city.model_dump_json(by_alias=True, exclude={"units": {"__all__": {"feed"}}})])


def store_city(store: Store, city: City, *, is_demo: bool = False) -> bool:
    """Makes `city` the store's city in one transaction, with an audit row; False if it is the store's city already.

    Units whose geometry this changes are marked, and the next resolve decides their windows anew. Raises CityError if
    it would remove a unit that has crops or a feed, or that runs or searches refer to, or change the source of one that
    has crops.
    """
    with store.begin() as connection:
        return load_city(connection, city, store.settings.operator, is_demo=is_demo)


def load_city(connection: Connection, city: City, operator: str, *, is_demo: bool = False) -> bool:
    """`store_city` in the connection's transaction."""
    _lock(connection)
    return _replace(connection, _read(connection), city, operator, Action.CITY_LOAD, is_demo)


def change_city(connection: Connection, change: Callable[[City | None], City], operator: str) -> bool:
    """Makes what `change` returns for the store's city (None: there is none) the store's city, as `load_city` does."""
    _lock(connection)
    old = _read(connection)
    is_demo = bool(connection.scalar(text("SELECT is_demo FROM city")))
    return _replace(connection, old, change(old), operator, Action.CITY_CHANGE, is_demo)


def _lock(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('urban_reid city', 0))"))


def _replace(
    connection: Connection,
    old: City | None,
    city: City,
    operator: str,
    action: Action,
    is_demo: bool,
) -> bool:
    new = canonical(city)
    digest = city_digest(new)
    if old is not None and city_digest(old) == digest:
        return False
    if old is not None:
        _refuse(connection, old, new)
    _write(connection, new, digest, is_demo)
    concerned = set() if old is None else keep_geometry(connection, old, new, digest)
    before, after = ({unit.code for unit in known.units} if known else set() for known in (old, new))
    details = {
        "digest": digest.hex(),
        "units": len(after),
        "added": len(after - before),
        "removed": len(before - after),
        "changed": {} if old is None else differences(old, new),
        "geometry_changed": sorted(concerned),
    }
    audit(connection, operator, action, details=details)
    return True


def find_city(store: Store) -> City | None:
    """The store's city in canonical form; None if no city is loaded."""
    with store.begin() as connection:
        return _read(connection)


def read_city(store: Store) -> City:
    """The store's city in canonical form. Raises CityError if no city is loaded."""
    with store.begin() as connection:
        return city_of(connection)


def city_of(connection: Connection) -> City:
    """The same in the connection's transaction."""
    city = _read(connection)
    if city is None:
        raise CityError("no city is loaded", do="run `urban-reid city load city.yaml`")
    return city


#: The city that was read last, by its digest, because a resolve reads it once for each unit.
_known: dict[bytes, City] = {}


def _read(connection: Connection) -> City | None:
    stored = connection.execute(text("SELECT timezone, digest FROM city")).one_or_none()
    if stored is None:
        return None
    digest = bytes(stored.digest)
    known = _known.get(digest)
    if known is not None:
        return known
    overlaps: dict[str, list[str]] = {}
    for a, b in connection.execute(text("SELECT a, b FROM camera_overlap")):
        overlaps.setdefault(a, []).append(b)
        overlaps.setdefault(b, []).append(a)
    units = tuple(
        Unit(
            code=row.code,
            name=row.name,
            kind=row.kind,
            source=row.source,
            position=None if row.x_m is None else (row.x_m, row.y_m),
            overlaps=tuple(overlaps.get(row.code, ())),
            clock_uncertainty_s=row.clock_uncertainty_s,
        )
        for row in connection.execute(
            text("SELECT code, name, kind, source, x_m, y_m, clock_uncertainty_s FROM urban_unit")
        )
    )
    walks = tuple(
        Walk.model_validate({"from": a, "to": b, "shortest_s": shortest_s})
        for a, b, shortest_s in connection.execute(text("SELECT a, b, shortest_s FROM walk"))
    )
    city = canonical(City(timezone=stored.timezone, units=units, walks=walks))
    if city_digest(city) == digest:  # it is not if another city was written between our statements
        _known.clear()
        _known[digest] = city
    return city


def _refuse(connection: Connection, old: City, new: City) -> None:
    cameras = set(
        connection.scalars(text("SELECT code FROM urban_unit WHERE EXISTS (SELECT FROM crop WHERE camera = code)"))
    )
    now = {unit.code: unit for unit in new.units}
    for unit in old.units:
        if unit.code in now:
            if unit.source != now[unit.code].source and unit.code in cameras:
                raise CityError(
                    f"unit {unit.code}: its source cannot change, because it has crops: it says which camera of a data "
                    "set they are of"
                )
        elif any(is_within(camera, unit.code) for camera in cameras):
            raise CityError(
                f"unit {unit.code} cannot be removed: it has crops, and decisions depend on it; load the changed city "
                "into a new data directory"
            )
    for camera in connection.scalars(text("SELECT camera FROM camera_feed ORDER BY camera")):
        if camera not in now:
            raise CityError(
                f"unit {camera} cannot be removed: it has a feed",
                do=f"`urban-reid cameras remove {camera} --reason TEXT` first",
            )


def _write(connection: Connection, city: City, digest: bytes, is_demo: bool) -> None:
    units = [
        {
            **unit.model_dump(include={"code", "name", "kind", "source", "clock_uncertainty_s"}),
            "x_m": unit.position[0] if unit.position else None,
            "y_m": unit.position[1] if unit.position else None,
            "geometry": digest,
        }
        for unit in city.units
    ]
    linked = [{"kind": kind, "a": a, "b": b, "s": s} for kind, a, b, s in sorted(links(city))]
    connection.execute(text("DELETE FROM camera_overlap"))
    connection.execute(text("DELETE FROM walk"))
    try:
        connection.execute(
            text("DELETE FROM urban_unit WHERE NOT code = ANY(:codes)"), {"codes": [unit["code"] for unit in units]}
        )
    except IntegrityError as error:
        line = str(error.orig).strip().splitlines()[-1].removeprefix("DETAIL:").strip()
        raise CityError(f"a unit that runs or searches refer to cannot be removed: {line}") from None
    connection.execute(  # canonical order: a parent comes before its children
        text("""INSERT INTO urban_unit (code, name, kind, source, x_m, y_m, clock_uncertainty_s, geometry)
                VALUES (:code, :name, :kind, :source, :x_m, :y_m, :clock_uncertainty_s, :geometry)
                ON CONFLICT (code) DO UPDATE SET name = excluded.name, kind = excluded.kind, source = excluded.source,
                x_m = excluded.x_m, y_m = excluded.y_m, clock_uncertainty_s = excluded.clock_uncertainty_s"""),
        units,
    )
    # The database decides which of two codes is less, because its collation may not order '-' and '/' by their bytes.
    overlaps = [link for link in linked if link["kind"] == "overlap"]
    walks = [link for link in linked if link["kind"] == "walk"]
    if overlaps:
        connection.execute(text("INSERT INTO camera_overlap VALUES (least(:a, :b), greatest(:a, :b))"), overlaps)
    if walks:
        connection.execute(text("INSERT INTO walk VALUES (least(:a, :b), greatest(:a, :b), :s)"), walks)
    connection.execute(
        text("""INSERT INTO city (timezone, digest, is_demo) VALUES (:timezone, :digest, :is_demo)
                ON CONFLICT (only_one) DO UPDATE SET timezone = excluded.timezone, digest = excluded.digest,
                is_demo = excluded.is_demo, loaded_at = now()"""),
        {"timezone": city.timezone, "digest": digest, "is_demo": is_demo},
    )
