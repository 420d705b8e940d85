"""The proof that what was erased is not here any more: rows, partitions, pictures, reports, exports, Prefect's rows.

After an erasure only salted hashes of the erased names are known. So everything that has a name is hashed in the same
way, and compared with them. What the disk holds below all this (rows that were deleted and not yet overwritten, the
write-ahead log) is `scrub`'s.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore
from pipeline.encryption.data_keys import DataKeys
from pipeline.erasure.erase import acting
from pipeline.erasure.files import files_below, prefect_database, words_in, words_of_file, written_paths
from pipeline.governance.audit import Action, audit
from pipeline.governance.tombstones import KINDS, erased_hash, read_salt
from pipeline.store import Store
from schemas.errors import InputError

#: Columns with names by kind: table, column; in hex or as text.
_COLUMNS = {
    "crop": (("crop", "key"), ("review_pair", "left_crop"), ("review_pair", "right_crop")),
    "picture": (("crop", "picture"), ("probe", "picture"), ("context_frame", "picture")),
    "identity": (
        ("identity", "key"),
        ("match_decision", "left_key"),
        ("match_decision", "right_key"),
        ("match_decision", "runner_up_key"),
        ("review_pair", "left_key"),
        ("review_pair", "right_key"),
    ),
    "person": (("identity", "persistent_id"), ("identity_event", "persistent_id"), ("identity_event", "other_id")),
    "probe": (("probe", "id"), ("search_request", "probe_id"), ("search_example", "probe_id")),
}
_IDS = ("person", "probe")
#: Folders of the home that hold no name of a person: the database, which is looked at by its rows, and models.
_NOT_SEARCHED = ("postgres", "models", "detectors", "attributes", "backups")
_AUDITED = text("SELECT id, concat_ws(' ', reason, details::text) AS said FROM audit WHERE salt IS NOT NULL")
_PROBES = text(
    "SELECT p.id, f.name FROM probe p LEFT JOIN case_file f ON f.id = p.case_id "
    "WHERE erased_hash('picture', encode(p.picture, 'hex')) = ANY(CAST(:hashes AS bytea[])) ORDER BY p.id"
)
# A partition that was detached, or restored past the program, is read by its own name.
_PARTITIONS = text(
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' "
    "AND c.relkind = 'r' AND c.relname ~ '^(crop_embedding|prototype)_m[0-9]+_[0-9]{8}$' ORDER BY 1"
)


@dataclass(frozen=True)
class Absence:
    """found: where something that was erased still is, in words. looked_at: how many names were compared."""

    found: tuple[str, ...]
    looked_at: int
    hashes: int


def verify_absence(store: Store, what: str, *, actor: str) -> Absence:
    """Looks everywhere for what was erased, with a row of the audit.

    what: the id of an erasure; or a name that one knows: a person's id, a crop's or identity's key, a picture's
    SHA-256. Raises InputError where it is no such thing, or where nothing of that name was erased.
    """
    with acting(store) as connection:
        salt = read_salt(connection)
        hashes = _hashes(connection, salt, what)
        audit(connection, actor, Action.ERASE_VERIFY, details={"erasures": _erasures(connection, hashes)})
    with store.owning() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        rows = list(_in_rows(connection, salt, hashes))
        names = int(connection.execute(text("SELECT count(*) FROM crop")).scalar_one())
    files = list(_in_files(store, salt, hashes))
    return Absence((*rows, *files), names, len(hashes))


def _hashes(connection: Connection, salt: bytes, what: str) -> set[bytes]:
    try:
        erasure = UUID(what)
        query = text("SELECT hash FROM erased WHERE erasure_id = :id")
        if found := connection.execute(query, {"id": erasure}).scalars().all():
            return {bytes(one) for one in found}
    except ValueError:
        pass
    if not list(words_in(what)):
        raise InputError(f"{what[:80]!r} is no id of an erasure or person, and no key or SHA-256 of 64 hex digits")
    query = text("SELECT hash FROM erased WHERE hash = ANY(CAST(:hashes AS bytea[]))")
    own = {erased_hash(salt, kind, what) for kind in KINDS}
    found = connection.execute(query, {"hashes": list(own)}).scalars().all()
    if not found:
        raise InputError(f"nothing of the name {what} was erased here")
    return {bytes(one) for one in found}


def _erasures(connection: Connection, hashes: set[bytes]) -> list[str]:
    query = text("SELECT DISTINCT erasure_id::text FROM erased WHERE hash = ANY(CAST(:hashes AS bytea[])) ORDER BY 1")
    return list(connection.execute(query, {"hashes": list(hashes)}).scalars())


def _in_rows(connection: Connection, salt: bytes, hashes: set[bytes]) -> Iterator[str]:
    for kind, columns in _COLUMNS.items():
        for table, column in columns:
            name = f"{column}::text" if kind in _IDS else f"encode({column}, 'hex')"
            query = text(
                f"SELECT count(*) FROM {table} WHERE sha256(:salt || convert_to(:kind || ' ' || {name}, 'UTF8')) "  # nosec B608
                "= ANY(CAST(:hashes AS bytea[]))"
            )
            at = {"salt": salt, "kind": kind, "hashes": list(hashes)}
            if many := connection.execute(query, at).scalar_one():
                yield f"table {table}: {many} rows with an erased {column}"
    for probe in connection.execute(_PROBES, {"hashes": list(hashes)}):
        of = "of no case" if probe.name is None else f"of case {probe.name!r}"
        yield f"uploaded picture {probe.id}, {of}, shows who was erased: `urban-reid erase --probe {probe.id}`"
    for partition in connection.execute(_PARTITIONS).scalars():
        table, column = ("crop", "crop_id") if partition.startswith("crop_embedding") else ("identity", "identity_id")
        query = text(
            f"SELECT count(*) FROM {partition} v WHERE NOT EXISTS (SELECT FROM {table} o WHERE o.id = v.{column})"  # nosec B608
        )
        if many := connection.execute(query).scalar_one():
            yield f"partition {partition}: {many} vectors of nobody"
    with connection.execute(_AUDITED, execution_options={"yield_per": 10_000}) as audited:
        rows = [row.id for row in audited if _any_erased(salt, hashes, words_in(row.said))]
    if rows:
        yield f"table audit: {len(rows)} rows name what was erased, the first {rows[0]}"


def _any_erased(salt: bytes, hashes: set[bytes], words: Iterable[str]) -> bool:
    return any(erased_hash(salt, kind, word) in hashes for word in set(words) for kind in KINDS)


def _in_files(store: Store, salt: bytes, hashes: set[bytes]) -> Iterator[str]:
    home, database, keys = store.settings.home, prefect_database(store.settings), DataKeys(store.settings)
    stores = CropStore(store.settings), context_store(store.settings)
    folders = [path for path in sorted(home.iterdir()) if path.name not in _NOT_SEARCHED and not path.is_symlink()]
    for path in (*folders, *written_paths(store)):
        for file in files_below(path):
            if file.name.startswith(database.name):
                continue
            if _any_erased(salt, hashes, _words_of(file, keys, [one.root for one in stores])):
                yield f"file {file}"
    for one in stores if store.settings.pictures_url is not None else ():
        for name in one.files.names():
            if _any_erased(salt, hashes, _words_in_store(one, name, keys)):
                yield f"file {one.files.where(name)}"
    if database.exists():
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as rows:
            for line in rows.iterdump():
                if _any_erased(salt, hashes, words_in(line)):
                    yield f"Prefect's database: {line.partition('(')[0].strip()}"


def _words_of(file: Path, keys: DataKeys, roots: Sequence[Path]) -> set[str]:
    """The names that a file has or holds; of a picture that is encrypted, its SHA-256."""
    try:
        words = words_of_file(file)
        for root in roots:
            if root in file.parents:
                words |= _words_of_picture(file.relative_to(root).parts, file.read_bytes(), keys)
    except FileNotFoundError:  # removed meanwhile
        return set()
    return words


def _words_in_store(pictures: CropStore, name: str, keys: DataKeys) -> set[str]:
    try:
        data = pictures.files.read(name)
    except FileNotFoundError:  # removed meanwhile
        return set()
    return {hashlib.sha256(data).hexdigest()} | _words_of_picture(name.split("/"), data, keys)


def _words_of_picture(parts: Sequence[str], data: bytes, keys: DataKeys) -> set[str]:
    """The SHA-256 of a picture, decrypted, and its name if that cannot be; nothing for what is no picture's file."""
    if len(parts) != 4:
        return set()
    name = parts[2] + parts[3]
    try:
        key = keys.find(parts[0], date.fromisoformat(parts[1]))
    except ValueError:  # no picture's place
        return set()
    plain = None if key is None else key.decrypt(data, name)
    return {name} if plain is None else {hashlib.sha256(plain).hexdigest()}
