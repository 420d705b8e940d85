"""Standing searches: asked for by one, approved by another who saw the pictures, ended by either.

The rules are the database's (migrations 0045, 0051): who may, within which authorization, and how many.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, TextClause, text

from pipeline.crops.crop_store import CropStore, place_of_crop, place_of_probe
from pipeline.governance.audit import Action, audit
from pipeline.governance.deciding import actor_of, authorized_by, check_may_export, deciding
from pipeline.governance.doors import check_role, grant_of
from pipeline.governance.leads import extension
from pipeline.governance.written import record_written
from pipeline.registry import model_in_use
from pipeline.search.calibrations import search_calibration
from pipeline.search.request import check_uploaded, insert_probes, store_probes
from pipeline.store import Store
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError
from schemas.levels import level_of
from schemas.parameters import StandingParameters

_WHAT = "a standing search"
#: In an open home, which has no authorization to end it.
_OPEN_FOR = timedelta(days=30)

#: States of those that look, or wait to.
_NOW = "state IN ('asked', 'looks')"
_COUNTED = "CROSS JOIN LATERAL standing_counts(s.id)"
_ALL = text(f"SELECT * FROM standing_states(false) AS s {_COUNTED} ORDER BY asked_at DESC, id")
_CURRENT = text(f"SELECT * FROM standing_states(true) AS s {_COUNTED} WHERE {_NOW} ORDER BY asked_at DESC, id")
_HOW_MANY = text(f"SELECT count(*) FROM standing_states(true) WHERE {_NOW}")
_EARLIER = text(
    f"SELECT * FROM standing_states(false) WHERE NOT {_NOW} AND (CAST(:before AS timestamptz) IS NULL "
    "OR asked_at < :before) ORDER BY asked_at DESC, id LIMIT :most"
)
_NAMED = text(
    f"SELECT * FROM standing_states(false) AS s {_COUNTED} WHERE length(:id) >= 4 AND starts_with(s.id::text, :id)"
)
_CROPS = text("SELECT id, encode(key, 'hex') AS key FROM crop WHERE key = ANY(:keys) AND withdrawn_at IS NULL")
_START = text(
    "INSERT INTO standing_search (operator, reason, units, bar, from_time, to_time) "
    "VALUES (:operator, :reason, :units, :bar, :from_time, :to_time) RETURNING id"
)
_PICTURES = text(
    "INSERT INTO standing_picture (standing_id, crop_id, probe_id) SELECT :standing, c, CAST(NULL AS uuid) "
    "FROM unnest(CAST(:crops AS bigint[])) AS c UNION ALL SELECT :standing, NULL, p FROM "
    "unnest(CAST(:probes AS uuid[])) AS p"
)
_SHOWN = text(
    "SELECT c.camera, c.captured_at, coalesce(c.picture, b.picture) AS picture, b.uploaded_at FROM standing_picture p "
    "LEFT JOIN crop c ON c.id = p.crop_id LEFT JOIN probe b ON b.id = p.probe_id "
    "WHERE p.standing_id = :standing AND coalesce(c.picture, b.picture) IS NOT NULL ORDER BY p.probe_id, p.crop_id"
)
_SEEN = text("SELECT standing_seen(:standing)")
_HITS = text("SELECT * FROM standing_hits(:standing, :most)")


def start(store: Store, asked: StandingParameters, pictures: Mapping[UUID, bytes] | None = None) -> UUID:
    """Asks for a standing search; returns its id. In a live home it waits until another person approves it.

    Without times it is about what cameras see from now on, until the authorization's period ends. pictures: as of
    `request_search`. Raises InputError for crops and probes that are not there and for units whose probabilities nobody
    knows, PictureError, HomeError, and NotAllowed; then nothing is written.
    """
    with deciding(store, _WHAT) as connection:
        connection.execute(text("SELECT check_may_look(:what)"), {"what": _WHAT})
        grant = grant_of(connection)
        begin = asked.from_time or datetime.now(UTC)
        end = asked.to_time or (grant and grant.to_time) or begin + _OPEN_FOR
        if end <= begin:
            raise InputError(f"it would end at {end:%Y-%m-%d %H:%M} UTC, before it begins: ask for a later period")
        _check_calibrated(connection, asked.units)
        crops = _crops(connection, asked.crops)
        at = insert_probes(store, connection, pictures or {}, asked.operator)
        check_uploaded(connection, asked.probes)
        values = asked.model_dump(include={"operator", "reason", "bar"})
        times = {"units": list(asked.units), "from_time": begin, "to_time": end}
        made: UUID = connection.execute(_START, values | times).scalar_one()
        connection.execute(_PICTURES, {"standing": made, "crops": crops, "probes": list(asked.probes)})
        if pictures:
            store_probes(CropStore(store.settings), pictures, at)
    return made


def approve(store: Store, standing: str, *, reason: str) -> UUID:
    """Has it look from now on. Raises InputError, NotAllowed."""
    return _decide(store, standing, "approved_at = now(), approval = :reason", reason)


def end(store: Store, standing: str, *, reason: str) -> UUID:
    """Ends it for good. Raises InputError, NotAllowed."""
    return _decide(store, standing, "ended_at = now(), ending = :reason", reason)


def _decide(store: Store, standing: str, change: str, reason: str) -> UUID:
    with deciding(store, "deciding on a standing search") as connection:
        found: UUID = _one(connection, standing).id
        sql = text(f"UPDATE standing_search SET {change} WHERE id = :id RETURNING id")  # nosec B608
        connection.execute(sql, {"id": found, "reason": reason}).scalar_one()
    return found


def standing_searches(store: Store) -> Sequence[Row[Any]]:
    """All of where whoever is signed in works, the newest first: what is looked for, and counts. Raises NotAllowed.

    state: asked (waits for an approval), looks, past (its period is over), over (its authorization holds no longer),
    ended.
    """
    return _read(store, _ALL)


def current_searches(store: Store) -> Sequence[Row[Any]]:
    """Of `standing_searches` those that look or wait for an approval. Raises NotAllowed."""
    return _read(store, _CURRENT)


def earlier_searches(store: Store, before: datetime | None, most: int) -> Sequence[Row[Any]]:
    """The other ones, without counts, at most `most`: those that were asked for before a moment. Raises NotAllowed."""
    return _read(store, _EARLIER, before=before, most=most)


def how_many_current(store: Store) -> int:
    """How many `current_searches` there are, without counting what they found. Raises NotAllowed."""
    return int(_read(store, _HOW_MANY)[0][0])


def _read(store: Store, sql: TextClause, **values: object) -> Sequence[Row[Any]]:
    check_role(store, ("operator", "supervisor", "auditor"), "looking at standing searches")
    with store.signed_in() as connection:
        return connection.execute(sql, values).all()


def standing_search(store: Store, standing: str) -> Row[Any]:
    """The one whose id begins so. Raises InputError, NotAllowed."""
    check_role(store, ("operator", "supervisor", "auditor"), "looking at standing searches")
    with store.signed_in() as connection:
        return _one(connection, standing)


def hits(store: Store, standing: UUID, most: int = 100) -> Sequence[Row[Any]]:
    """What it raised (lead, person, probability, unit, raised_at, last_frame_at, passages, verdict), the newest first.

    For whoever is signed in under an authorization of its case; person and probability for whoever asked for it, since
    who may confirm a lead sees no figure. In an open home there is no lead.
    """
    with store.signed_in() as connection:
        return connection.execute(_HITS, {"standing": standing, "most": most}).all()


def look_at_pictures(store: Store, crops: CropStore, standing: UUID) -> list[bytes]:
    """The encoded pictures of whom it looks for, after an audit row; none for whoever may not see them."""
    note_look(store, standing)
    return pictures(store, crops, standing)


def note_look(store: Store, standing: UUID) -> int:
    """Writes the audit row of a look at its pictures; how many there are for whoever is signed in."""
    with store.signed_in() as connection:
        rows = connection.execute(_SHOWN, {"standing": standing}).all()
        if rows:
            details = authorized_by(connection) | {"standing": str(standing)}
            audit(connection, actor_of(store, connection), Action.STANDING_SHOW, details=details)
    return len(rows)


def pictures(store: Store, crops: CropStore, standing: UUID) -> list[bytes]:
    """The encoded pictures that `note_look` noted; none without it."""
    with store.signed_in() as connection:
        seen = connection.scalar(_SEEN, {"standing": standing})
        rows = connection.execute(_SHOWN, {"standing": standing}).all() if seen else ()
    places = [place_of_probe(row.uploaded_at) if row.uploaded_at else place_of_crop(row.camera, row.captured_at)
              for row in rows]  # fmt: skip
    return [crops.get(place, bytes(row.picture)) for place, row in zip(places, rows, strict=True)]


def write_pictures(store: Store, crops: CropStore, standing: Row[Any], folder: Path) -> list[Path]:
    """Writes them into a folder. Raises InputError, NotAllowed."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another")
    check_may_export(store, "writing the pictures of a standing search to files")
    found = look_at_pictures(store, crops, standing.id)
    with store.begin() as connection:
        record_written(connection, "standing", folder, unit=standing.units[0], of_row=standing.id)
    make_folders(folder)
    paths = [folder / f"sought-{number}{extension(data)}" for number, data in enumerate(found, 1)]
    for path, data in zip(paths, found, strict=True):
        write_whole(path, data)
    return paths


def _one(connection: Connection, standing: str) -> Row[Any]:
    rows = connection.execute(_NAMED, {"id": standing.lower()}).all()
    if len(rows) != 1:
        many = "more than one standing search's id begins" if rows else "no standing search's id begins"
        raise InputError(f"{many} with {standing[:40]!r}", do="`urban-reid standing list` shows them")
    return rows[0]


def _check_calibrated(connection: Connection, units: Sequence[str]) -> None:
    model = model_in_use(connection)
    for unit in units:
        if search_calibration(connection, model.id, level_of(unit)) is None:
            raise InputError(
                f"no probability is known for searches in {unit}, so nobody could reach a bar: it takes a building, "
                "street or district, and a calibration of searches",
                do=f"`urban-reid models calibrate {model.name}` makes one",
            )


def _crops(connection: Connection, keys: Sequence[str]) -> list[int]:
    found = {row.key: int(row.id) for row in connection.execute(_CROPS, {"keys": [bytes.fromhex(key) for key in keys]})}
    for key in keys:
        if key not in found:
            raise InputError(f"no crop has the key {key}", do="`urban-reid resolve --export` lists keys")
    return [found[key] for key in keys]
