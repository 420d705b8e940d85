"""Restores a backup into an empty data directory, and its database into the embedded or an empty user-supplied server.

A note in the data directory, restore.json, names the backup until everything is there; until then no other command
opens the city, and the same restore goes on where a killed one ended: files that are there whole are not copied again,
and the database is restored in one transaction.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.backup.database import as_owner, database_of
from pipeline.backup.keys import restored_key
from pipeline.backup.manifest import FOLDERS, MANIFEST, Manifest, read_files, read_manifest, settings_that_matter
from pipeline.backup.objects import DamagedFile, bring_back, file_hash, holds, object_hash, object_path, walk
from pipeline.city.decision_digest import decision_digest
from pipeline.encryption.sealed import BrokenSeal, unseal
from pipeline.erasure.erase import Erased, erase_again
from pipeline.erasure.erasure_list import list_path, read_list
from pipeline.governance.audit import Action, audit
from pipeline.store import Store, dump, schema
from pipeline.store.embedded_home import UNFINISHED, exists
from pipeline.store.errors import database_errors
from pipeline.store.kept_dumps import check_room
from schemas.disk import alone, make_folders, make_home, write_whole
from schemas.errors import HomeError, InputError, StoreError
from schemas.settings import Settings

Tell = Callable[[str, int, int], None]
#: Room for a restored database, relative to the size of its dump.
_ROOM = 2


@dataclass(frozen=True)
class Restored:
    """A backup that was restored."""

    manifest: Manifest
    digest: str | None  # the decision digest that was found, equal to the manifest's; None for an older revision
    has_list: bool  # of erasures
    erased: Erased | None  # what was erased again by it; None: nothing
    other_settings: dict[str, object]  # by variable: the backup's value of each setting that differs here


def restore(
    settings: Settings, folder: Path, tell: Tell = lambda *_: None, *, erasures: Path | None = None
) -> Restored:
    """Restores the backup in `folder` into the home of `settings`; writes an audit row.

    erasures: the list of erasures of the city that was backed up (HOME/erasures.jsonl); unless given, that of this home
    if it has one. What was erased after the backup is erased again before any other command opens the city.

    Raises InputError for a backup that is damaged or of a newer program, HomeError or StoreError for a home or a server
    that holds data or another unfinished restore.
    """
    manifest = read_manifest(folder)
    schema.check_known(manifest.revision, f"the backup in {folder}")
    for part in (manifest.database, manifest.files):
        if not holds(folder / part.name, part.sha256):
            raise _damaged(folder, part.name)
    if (manifest.pictures_url is None) != (settings.pictures_url is None):
        raise _other_place(manifest)
    details = {"taken_at": manifest.taken_at.isoformat(), "digest": manifest.decision_digest}
    needed = manifest.file_bytes + manifest.database.bytes + _room(settings, manifest.database.bytes)
    with _into(settings, file_hash(folder / MANIFEST), folder, FOLDERS, needed):
        key = restored_key(settings, folder, manifest)
        _copy_files(folder, settings.home, manifest, key, tell)
        with _plain_dump(settings.home, folder / manifest.database.name, key) as path:
            digest = _restore_database(settings, path, details, tell)
        if digest not in (None, manifest.decision_digest):
            raise StoreError(
                f"the restored database has the decision digest {digest}, and the backup's is "
                f"{manifest.decision_digest}: do not use it; please report this"
            )
        has_list, erased = _erase_again(settings, erasures, tell)
    return Restored(manifest, digest, has_list, erased, other_settings(manifest, settings))


def _other_place(manifest: Manifest) -> InputError:
    if manifest.pictures_url is None:
        return InputError("the backup holds its pictures: restore it without URBAN_REID_PICTURES_URL")
    return InputError(
        f"the backup holds no pictures, because they lay in {manifest.pictures_url}: set URBAN_REID_PICTURES_URL to "
        "that, or to where they are now"
    )


def _erase_again(settings: Settings, given: Path | None, tell: Tell) -> tuple[bool, Erased | None]:
    """Applies the list of erasures to the restored database: whether there is one, and what went by it."""
    path = given or list_path(settings)
    if not path.exists():
        if given is not None:
            raise InputError(f"--erasures {given}: there is no such file")
        return False, None
    salt, hashes = read_list(path)
    tell("erasing again what was erased after the backup", 0, 0)
    with database_errors(*schema.whereabouts(settings)), database_of(settings) as database:
        schema.migrate(database.connect)
    with Store(settings, "urban-reid db restore") as store:
        return True, erase_again(store, salt, hashes, actor=settings.operator)


def restore_dump(
    settings: Settings, path: Path, tell: Tell = lambda *_: None, *, erasures: Path | None = None
) -> tuple[str | None, Erased | None]:
    """Restores a dump, such as those in HOME/backups, into a home or a server without a database.

    Writes an audit row. Pictures and models of the home stay as they are. Returns the decision digest, None for an
    earlier revision, which the next command migrates, and what was erased again. erasures: as `restore`.

    Raises StoreError for a file that is no dump of a city, or one of a newer program, and as `restore`.
    """
    schema.check_known(dump.revision(path), f"the dump {path}")
    with _into(settings, file_hash(path), path, (), _room(settings, path.stat().st_size)):
        digest = _restore_database(settings, path, {"dump": path.name}, tell)
        return digest, _erase_again(settings, erasures, tell)[1]


def _room(settings: Settings, dump_bytes: int) -> int:
    """Bytes that a restored dump takes in the home."""
    return _ROOM * dump_bytes if settings.database_url is None else 0


def _restore_database(settings: Settings, path: Path, details: dict[str, str], tell: Tell) -> str | None:
    with database_errors(*schema.whereabouts(settings)), database_of(settings) as database:
        tell("restoring the database", 0, 0)
        if settings.database_url is not None:
            with schema.session(database.connect) as connection:
                schema.prepare_supplied(connection)
        with schema.session(database.connect) as connection:
            is_there = schema.current(connection) is not None  # a restore that was interrupted came this far
        if not is_there:
            dump.read_dump(path, database)
        tell("checking the decisions", 0, 0)
        with as_owner(database) as connection:
            # This program's digest needs this program's tables.
            is_of_today = schema.current(connection) == schema.head()
            digest = decision_digest(connection) if is_of_today else None
        with as_owner(database) as connection:
            _end_sessions(connection)
            audit(connection, settings.operator, Action.BACKUP_RESTORE, details=details)
            connection.execute(text("ANALYZE"))
    return digest


def _end_sessions(connection: Connection) -> None:
    """Ends the sessions that the backup knew: some have ended since, and some roles were taken away."""
    if connection.scalar(text("SELECT to_regclass('public.session')")) is not None:
        connection.execute(text("UPDATE public.session SET ended_at = now() WHERE ended_at IS NULL"))


@contextmanager
def _into(settings: Settings, seal: str, source: Path, folders: tuple[str, ...], needed: int) -> Iterator[None]:
    """Keeps others out of a home without a database and without files in `folders` while it is restored from `source`.

    An error leaves the note that the restore has not finished, by which the same `seal` goes on.
    """
    home = settings.home
    make_home(home)
    with alone(home / "restore.lock", HomeError(f"another program is restoring a backup into {home}")):
        if not _goes_on(home, seal):
            _check_empty(settings, folders)
            check_room(home, needed, f"{source} is to be restored")
            note = json.dumps({"backup": seal, "folder": str(source.absolute())})
            write_whole(home / UNFINISHED, note, mode=0o600, sync=True)
        yield
        os.sync()
        (home / UNFINISHED).unlink()


def _goes_on(home: Path, seal: str) -> bool:
    """Whether a restore of the same backup was begun here. Raises HomeError if it was another one."""
    try:
        begun = json.loads((home / UNFINISHED).read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        begun = {}
    if begun.get("backup") != seal:
        raise HomeError(
            f"{home} holds an unfinished restore of another backup ({begun.get('folder', 'unknown')}); "
            "finish that one, or empty the folder"
        )
    return True


def _check_empty(settings: Settings, folders: tuple[str, ...]) -> None:
    """Raises HomeError or StoreError unless the home holds no file in `folders` and the database no table."""
    home = settings.home
    for top in folders:
        if next(walk(home / top), None) is not None:
            raise HomeError(f"{home / top} is not empty; restore into an empty data directory: set URBAN_REID_HOME")
    if settings.database_url is None:
        if exists(home):
            raise HomeError(f"{home} has a database already; restore into an empty data directory: set URBAN_REID_HOME")
        return
    with database_of(settings) as database, schema.session(database.connect) as connection:
        tables = connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
        if tables:
            raise StoreError(
                f"{schema.whereabouts(settings)[0]} has {tables} tables already; restore into an empty database"
            )


def _copy_files(folder: Path, home: Path, manifest: Manifest, key: bytes | None, tell: Tell) -> None:
    of_models: dict[str, Path] = {}  # by hash; a feature space has the files of its base
    for done, file in enumerate(read_files(folder, manifest)):
        tell("files copied", done, manifest.count)
        to, sealed_with = home / file.path, key if file.sealed else None
        first = of_models.setdefault(file.sha256, to) if file.path.startswith("models/") else to
        if to.exists() and object_hash(to, sealed_with) == file.sha256:
            continue
        if first != to and _named_again(first, to):
            continue
        try:
            bring_back(object_path(folder, file.sha256), to, file.sha256, sealed_with)
        except (DamagedFile, FileNotFoundError, BrokenSeal):
            raise _damaged(folder, file.path) from None


def _named_again(file: Path, to: Path) -> bool:
    """A second name for a file that never changes; False on a file system without links."""
    make_folders(to.parent)
    try:
        to.unlink(missing_ok=True)
        os.link(file, to)
    except OSError:
        return False
    return True


@contextmanager
def _plain_dump(home: Path, path: Path, key: bytes | None) -> Iterator[Path]:
    """The dump as PostgreSQL's programs read it: in the data directory while it is restored, where it was sealed."""
    if key is None:
        yield path
        return
    plain = home / "restore.dump"
    try:
        with path.open("rb") as reading, plain.open("wb") as writing:
            plain.chmod(0o600)
            unseal(key, reading, writing)
        yield plain
    except BrokenSeal:
        raise _damaged(path.parent, path.name) from None
    finally:
        plain.unlink(missing_ok=True)


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(
        f"{folder} cannot be restored: {what} is missing or damaged; `urban-reid db verify {folder}` lists all that is"
    )


def other_settings(manifest: Manifest, settings: Settings) -> dict[str, object]:
    """By variable: what the backup's settings were, where those of this process differ."""
    here, found = _variables(settings_that_matter(settings)), _variables(manifest.settings)
    return {name: value for name, value in found.items() if here.get(name, value) != value}


def _variables(values: dict[str, object], prefix: str = "URBAN_REID_") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        variable = f"{prefix}{name.upper()}"
        found |= _variables(value, f"{variable}__") if isinstance(value, dict) else {variable: value}
    return found
