"""What is stored about one person, for that person: an answer to a request of access (GDPR, Art. 15)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from pipeline.city.named import current_identity
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.governance.audit import Action
from pipeline.governance.doors import Grant, check_authorized, grant_of, refused
from pipeline.governance.retention import Retention, read_retention
from pipeline.governance.written import record_written
from pipeline.ingest.features import SOURCE
from pipeline.store import Store
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError, StoreError
from schemas.text import one_line

#: Of the picture's first bytes: how its file is named.
_TYPES = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp", b"BM": "bmp"}

_PEOPLE = text(
    "SELECT n.persistent_id, n.unit, n.level, n.first_seen, n.last_seen, n.crops, n.tracklets, n.key, "
    "(SELECT count(*) FROM prototype p WHERE p.identity_id = n.id) AS vectors FROM identity_now n "
    "WHERE n.tracklets && CAST(:tracklets AS bigint[]) ORDER BY n.level DESC, n.unit, n.key"
)
_CROPS = text(
    "SELECT encode(c.key, 'hex') AS key, c.camera, u.name, c.captured_at, c.timed, c.ingested_at, c.picture, c.source, "
    "c.width_px, c.height_px, "
    "(SELECT count(*) FROM crop_embedding e WHERE e.day = c.day AND e.crop_id = c.id) AS vectors, "
    "to_jsonb(a) - 'crop_id' AS attributes FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "JOIN urban_unit u ON u.code = c.camera LEFT JOIN crop_attributes a ON a.crop_id = c.id "
    "WHERE m.identity_id = ANY(:tracklets) AND c.withdrawn_at IS NULL ORDER BY c.captured_at, c.key"
)
_HITS = text("SELECT * FROM searches_of_subject(CAST(:people AS uuid[]))")
#: Asked as the program, which sees them all.
_STORED = text(
    "SELECT count(*) FROM identity_member m JOIN crop c ON c.id = m.crop_id WHERE m.identity_id = ANY(:tracklets) "
    "AND c.withdrawn_at IS NULL"
)
_DECISIONS = text(
    "SELECT count(*) FILTER (WHERE verdict = 'join') AS joined, count(*) FILTER (WHERE verdict = 'apart') AS apart, "
    "count(*) FILTER (WHERE verdict = 'review') AS asked FROM match_decision d JOIN run r ON r.id = d.run_id "
    "WHERE r.superseded_at IS NULL AND (d.left_key = ANY(:keys) OR d.right_key = ANY(:keys))"
)


@dataclass(frozen=True)
class Subject:
    """An answer that was written."""

    folder: Path
    identities: int
    crops: int
    pictures: int
    searches: int


def check_access(store: Store, unit: str) -> None:
    """Raises NotAllowed unless, in a live home, whoever is signed in works under an authorization of kind `subject`."""
    with store.signed_in() as connection:
        grant = grant_of(connection)
        kind = None
        if grant is not None and grant.authorization is not None:
            query = text("SELECT kind FROM case_authorization WHERE id = :id")
            kind = connection.scalar(query, {"id": grant.authorization})
    what = "answering a request of access"
    if grant is not None and not grant.is_open and kind != "subject":
        raise refused(store, grant, what, f"{what} needs an authorization of kind subject", unit)
    check_authorized(store, unit, what)


def write_subject(store: Store, crops: CropStore, people: Sequence[str], folder: Path, *, reason: str) -> Subject:
    """Writes all that is stored about identities that a person decided are the subject's, into a new or empty folder.

    people: ids, or their first digits. `subject.md` is for the subject to read, `subject.json` holds the same for a
    program, `pictures/` what the cameras took. Its row of the audit is committed before. Raises InputError, NotAllowed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; choose a new one")
    with store.begin() as connection:
        found = [current_identity(connection, one) for one in people]
    for unit in sorted({row.unit for row in found}):
        check_access(store, unit)
        named = [str(row.persistent_id) for row in found if row.unit == unit]
        check_authorized(
            store, unit, "an access request", Action.SUBJECT_EXPORT, reason=reason, details={"identities": named}
        )
    tracklets = sorted({t for row in found for t in row.tracklets})
    with store.begin() as connection:
        record_written(connection, "subject", folder)
        stored: int = connection.execute(_STORED, {"tracklets": tracklets}).scalar_one()
    with store.signed_in() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        said = _read(connection, tracklets)
        zone = ZoneInfo(str(connection.scalar(text("SELECT timezone FROM city")) or "UTC"))
        taken = connection.execute(_CROPS, {"tracklets": tracklets}).all()
        grant = grant_of(connection)
    said["covered"] = _covered(grant, stored - len(taken))
    make_folders(folder / "pictures")
    pictures = 0
    for number, row in enumerate(taken, 1):
        if row.source == SOURCE:
            continue
        try:
            data = crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
        except StoreError:
            continue
        name = f"pictures/{number:05}.{_TYPES.get(data[:2], 'img')}"
        write_whole(folder / name, data, mode=0o600)
        said["sightings"][number - 1]["picture"] = name
        pictures += 1
    write_whole(folder / "subject.json", json.dumps(said, indent=1, ensure_ascii=False) + "\n", mode=0o600)
    write_whole(folder / "subject.md", _page(said, zone), mode=0o600)
    return Subject(folder, len(said["identities"]), len(taken), pictures, len(said["searches"]))


def _read(connection: Connection, tracklets: Sequence[int]) -> dict[str, list[dict[str, object]]]:
    """What is stored, by kind, as JSON."""
    retention = read_retention(connection)
    people = connection.execute(_PEOPLE, {"tracklets": list(tracklets)}).all()
    ids: list[UUID] = [row.persistent_id for row in people]
    hits = connection.execute(_HITS, {"people": ids}).all()
    decided = connection.execute(_DECISIONS, {"keys": [bytes(row.key) for row in people]}).one()
    return {
        "identities": [
            {
                "id": str(row.persistent_id),
                "level": row.level,
                "unit": row.unit,
                "first_seen": row.first_seen.isoformat(),
                "last_seen": row.last_seen.isoformat(),
                "crops": row.crops,
                "vectors": row.vectors,
                "kept_hours": retention.hours_of_rows(row.unit),
            }
            for row in people
        ],
        "sightings": [
            {
                "crop": row.key,
                "camera": row.camera,
                "camera_name": row.name,
                "time": row.captured_at.isoformat() if row.timed else None,
                "stored_at": row.ingested_at.isoformat(),
                "pixels": [row.width_px, row.height_px],
                "vectors": row.vectors,
                "attributes": row.attributes,
                "kept_hours": _kept(retention, row.camera),
                "picture": None,
            }
            for row in connection.execute(_CROPS, {"tracklets": list(tracklets)})
        ],
        "decisions": [dict(decided._mapping)],
        "searches": [
            {"time": row.requested_at.isoformat(), "unit": row.unit, "rank": row.rank, "probability": row.probability}
            for row in hits
        ],
    }


def _covered(grant: Grant | None, left_out: int) -> list[dict[str, object]]:
    """Units and period of the authorization, and how many sightings of these identities it leaves out; none if all."""
    if grant is None or grant.is_open or grant.from_time is None or grant.to_time is None:
        return []
    period = {"from": grant.from_time.isoformat(), "to": grant.to_time.isoformat()}
    return [{"units": list(grant.units), **period, "sightings_left_out": left_out}]


def _kept(retention: Retention, camera: str) -> int | None:
    from pipeline.governance.retention import LEVELS

    return retention.hours(camera, LEVELS[0])


def _page(said: dict[str, list[dict[str, object]]], zone: ZoneInfo) -> str:
    sightings, searches = said["sightings"], said["searches"]
    decided = said["decisions"][0]
    lines = [
        "# What is stored about you",
        "",
        f"Written {datetime.now(UTC).astimezone(zone):%Y-%m-%d %H:%M %Z}. Times are in {zone.key}.",
        "",
        "A system of cameras compares how people look, and keeps for each passage before a camera pictures, the place,",
        "the time, and numbers computed from the pictures (vectors). It knows no names. A person decided that the",
        "following is about you; it may also hold mistakes of the system, which you may have corrected or erased.",
        "",
        *_limits(said["covered"], zone),
        "## Where and when you were seen",
        "",
        "| time | camera | picture | vectors | kept for |",
        "|---|---|---|---:|---|",
        *(
            _cells(
                _time(row["time"], zone),
                f"{row['camera_name'] or row['camera']}",
                f"[picture]({row['picture']})" if row["picture"] else "none",
                str(row["vectors"]),
                _hours(row["kept_hours"]),
            )
            for row in sightings
        ),
        "",
        f"In {sum(row['attributes'] is not None for row in sightings)} of these pictures a model noted what you wore",
        "and carried, with its colors: `subject.json` lists that.",
        "",
        "## What was concluded",
        "",
        "| level | place | first seen | last seen | vectors | kept for |",
        "|---|---|---|---|---:|---|",
        *(
            _cells(
                str(row["level"]),
                str(row["unit"]),
                _time(row["first_seen"], zone),
                _time(row["last_seen"], zone),
                str(row["vectors"]),
                _hours(row["kept_hours"]),
            )
            for row in said["identities"]
        ),
        "",
        f"{decided['joined']} comparisons joined these passages with others, {decided['apart']} kept them apart, "
        f"{decided['asked']} were left to a person.",
        "",
        "## Searches that showed you",
        "",
        *(
            ["You were shown in no search."]
            if not searches
            else ["| time | place | rank | probability |", "|---|---|---:|---:|"]
        ),
        *(
            _cells(_time(row["time"], zone), str(row["unit"]), str(row["rank"]), _share(row["probability"]))
            for row in searches
        ),
        "",
        "## Your rights",
        "",
        "You may ask for correction, erasure or restriction, object, and complain to the supervisory authority (GDPR,",
        "Arts. 16 to 21 and 77). What is kept for a time goes by itself after it, unless an open case needs it.",
    ]
    return "\n".join(lines) + "\n"


def _limits(covered: list[dict[str, object]], zone: ZoneInfo) -> list[str]:
    """What the page does not say because the authorization does not cover it."""
    lines = []
    for one in covered:
        units = one["units"] if isinstance(one["units"], list) else []
        where = ", ".join(str(unit) or "the whole city" for unit in units)
        lines += [
            f"This answer covers {one_line(where)} from {_time(one['from'], zone)} to {_time(one['to'], zone)},",
            "as it was authorized. What is stored of other places and times, or without a time, is not in it, nor are",
            f"searches that found only that. Left out are {one['sightings_left_out']} sightings of these identities.",
            "",
        ]
    return lines


def _share(probability: object) -> str:
    return f"{probability:.0%}" if isinstance(probability, float) else "not known"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _time(stated: object, zone: ZoneInfo) -> str:
    return f"{datetime.fromisoformat(str(stated)).astimezone(zone):%Y-%m-%d %H:%M:%S}" if stated else "not known"


def _hours(hours: object) -> str:
    return "no end is set" if hours is None else f"{hours} hours"
