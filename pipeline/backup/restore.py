"""Restores a backup into an empty data directory, and its database into the embedded or an empty user-supplied server.

A note in the data directory, restore.json, names the backup until everything is there; until then no other command
opens the city, and the same restore goes on where a killed one ended: files that are there whole are not copied again,
and the database is restored in one transaction.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.backup.database import as_owner, database_of
from pipeline.backup.manifest import FOLDERS, MANIFEST, Manifest, read_files, read_manifest, settings_that_matter
from pipeline.backup.objects import DamagedFile, copy_whole, file_hash, holds, make_folders, object_path, walk
from pipeline.city.decision_digest import decision_digest
from pipeline.governance.audit import Action, audit
from pipeline.store import dump, schema
from pipeline.store.embedded_home import UNFINISHED, exists
from pipeline.store.errors import database_errors
from schemas.disk import open_lock, try_lock, write_whole
from schemas.errors import HomeError, InputError, StoreError
from schemas.settings import Settings

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Restored:
    """A backup that was restored."""

    manifest: Manifest
    digest: str | None  # the decision digest that was found, equal to the manifest's; None for an older revision
    other_settings: dict[str, object]  # by variable: the backup's value of each setting that differs here


def restore(settings: Settings, folder: Path, tell: Tell = lambda *_: None) -> Restored:
    """Restores the backup in `folder` into the home of `settings`; writes an audit row.

    Raises InputError for a backup that is damaged or of a newer program, HomeError or StoreError for a home or a server
    that holds data or another unfinished restore.
    """
    manifest = read_manifest(folder)
    schema.check_known(manifest.revision, f"the backup in {folder}")
    for part in (manifest.database, manifest.files):
        if not holds(folder / part.name, part.sha256):
            raise _damaged(folder, part.name)
    seal = file_hash(folder / MANIFEST)
    home = settings.home
    make_folders(home)
    with _alone(home):
        goes_on = _goes_on(home, seal)
        if not goes_on:
            _check_empty(settings)
            write_whole(home / UNFINISHED, json.dumps({"backup": seal, "folder": str(folder.absolute())}), mode=0o600)
        _copy_files(folder, home, manifest, tell)
        with database_errors(*schema.whereabouts(settings)), database_of(settings) as database:
            tell("restoring the database", 0, 0)
            if settings.database_url is not None:
                with schema.session(database.connect) as connection, connection.begin():
                    schema.prepare_supplied(connection)
            with schema.session(database.connect) as connection:
                found = schema.current(connection)
            if found is None:  # else a restore that was interrupted came this far
                dump.read_dump(folder / manifest.database.name, database)
            tell("checking the decisions", 0, 0)
            with as_owner(database) as connection:
                digest = _check_digest(connection, manifest)
            with as_owner(database) as connection:
                details = {"taken_at": manifest.taken_at.isoformat(), "digest": manifest.decision_digest}
                audit(connection, settings.operator, Action.BACKUP_RESTORE, details=details)
                connection.execute(text("ANALYZE"))
        (home / UNFINISHED).unlink()
    return Restored(manifest, digest, other_settings(manifest, settings))


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    with open_lock(home / "restore.lock") as lock:
        if not try_lock(lock):
            raise HomeError(f"another program is restoring a backup into {home}")
        yield


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


def _check_empty(settings: Settings) -> None:
    """Raises HomeError or StoreError unless the home holds no file of a city and the database no table."""
    home = settings.home
    for top in FOLDERS:
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


def _copy_files(folder: Path, home: Path, manifest: Manifest, tell: Tell) -> None:
    for done, file in enumerate(read_files(folder, manifest)):
        tell("files copied", done, manifest.count)
        to = home / file.path
        if holds(to, file.sha256):
            continue
        try:
            copy_whole(object_path(folder, file.sha256), to, file.sha256)
        except (DamagedFile, FileNotFoundError):
            raise _damaged(folder, file.path) from None


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(
        f"{folder} cannot be restored: {what} is missing or damaged; `urban-reid db verify {folder}` lists all that is"
    )


def _check_digest(connection: Connection, manifest: Manifest) -> str | None:
    if schema.current(connection) != schema.head():
        return None  # this program's digest needs this program's tables; the next command migrates
    digest = decision_digest(connection)
    if digest != manifest.decision_digest:
        raise StoreError(
            f"the restored database has the decision digest {digest}, and the backup's is {manifest.decision_digest}: "
            "do not use it; please report this"
        )
    return digest


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
