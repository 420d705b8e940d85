"""Writes a backup, while the city may be at work.

The dump is taken from one snapshot first. Then the files are copied: pictures never change, and what the rows of the
snapshot name was there before them.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from pipeline.backup.database import database_of
from pipeline.backup.manifest import (
    FOLDERS,
    MANIFEST,
    Content,
    Manifest,
    StoredFile,
    read_manifest,
    settings_that_matter,
    write_manifest,
)
from pipeline.backup.objects import (
    DamagedFile,
    copy_whole,
    file_hash,
    holds,
    make_folders,
    named_hash,
    object_path,
    walk,
)
from pipeline.city.decision_digest import decision_digest
from pipeline.crops.crop_store import PROBES, CropStore, Place
from pipeline.governance.audit import Action, audit
from pipeline.ingest.features import SOURCE
from pipeline.registry.folders import is_whole
from pipeline.store import Store, dump, schema
from pipeline.store.embedded_home import exists
from schemas.disk import open_lock, replacing, try_lock
from schemas.errors import InputError, StoreError
from schemas.settings import Settings

#: Told with what is being done, how much of it is done, and how much there is (0: not known).
Tell = Callable[[str, int, int], None]

_LOCK = "backup.lock"
#: Names that a backup writes beside its manifest.
_OURS = re.compile(r"(database|files)-[0-9TZ]+\.(dump|jsonl)(\.partial)?")

#: Pictures that have a file, with the parts of their place.
_PICTURES = text(
    "SELECT picture, split_part(camera, '/', 1), day FROM crop "
    "WHERE picture_gone_at IS NULL AND withdrawn_at IS NULL AND source <> :features "
    f"UNION SELECT picture, '{PROBES}', (uploaded_at AT TIME ZONE 'UTC')::date FROM probe"
)


@dataclass(frozen=True)
class BackedUp:
    """A backup that was written."""

    manifest: Manifest
    copied_files: int
    copied_bytes: int


@dataclass(frozen=True)
class _Snapshot:
    """What the dump's snapshot says."""

    taken_at: datetime
    revision: str
    postgresql: str
    began: datetime | None
    decision_digest: str
    pictures: set[str]  # paths below the crop store's root of the pictures that should be there
    models: dict[str, bytes]  # digest by name


def backup(settings: Settings, folder: Path, tell: Tell = lambda *_: None) -> BackedUp:
    """Backs up the city of `settings` into `folder`, which is empty or holds an earlier backup of the same city.

    Writes an audit row first. Raises InputError for a folder that cannot be used, StoreError, HomeError, OSError; then
    an earlier backup in it is as it was.
    """
    _check_place(settings, folder)
    with Store.open(settings, "urban-reid db backup") as store, _alone(folder):
        before = read_manifest(folder) if (folder / MANIFEST).exists() else None
        with store.begin() as connection:
            if before is not None and before.began not in (None, found := _began(connection)):
                raise InputError(
                    f"{folder} holds the backup of another city, which began {before.began} and not {found}; "
                    "choose another folder"
                )
            audit(connection, settings.operator, Action.BACKUP_WRITE, details={"folder": str(folder.absolute())})
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        dump_path, list_path = folder / f"database-{stamp}.dump", folder / f"files-{stamp}.jsonl"
        snapshot = _dump(store, dump_path, tell)
        copied = _Copied()
        with replacing(list_path, mode=0o600) as partial, partial.open("w", encoding="utf-8") as lines:
            for file in _copy_files(settings, folder, copied, tell):
                lines.write(json.dumps(file.model_dump(), ensure_ascii=False) + "\n")
        lost = (name for name, digest in snapshot.models.items() if not is_whole(settings.models_dir / name, digest))
        tell("checking and writing to the disk", 0, 0)
        manifest = Manifest(
            taken_at=snapshot.taken_at,
            program=version("urban-reid"),
            revision=snapshot.revision,
            postgresql=snapshot.postgresql,
            began=snapshot.began,
            decision_digest=snapshot.decision_digest,
            settings=settings_that_matter(settings),
            database=_content(dump_path),
            files=_content(list_path),
            count=copied.listed,
            file_bytes=copied.listed_bytes,
            missing_pictures=len(snapshot.pictures - copied.pictures),
            missing_models=tuple(sorted(lost)),
        )
        os.sync()  # one for all files: the manifest names only what is on the disk
        write_manifest(folder, manifest)
        _prune(folder, manifest, copied.objects)
    return BackedUp(manifest, copied.files, copied.bytes)


class _Copied:
    """Counts of what a run of `_copy_files` listed and copied."""

    def __init__(self) -> None:
        self.listed = self.listed_bytes = self.files = self.bytes = 0
        self.objects: set[str] = set()
        self.pictures: set[str] = set()


def _check_place(settings: Settings, folder: Path) -> None:
    home, place = Path(os.path.realpath(settings.home)), Path(os.path.realpath(folder))
    if place == home or home in place.parents:
        raise InputError(
            f"{folder} lies in the data directory {settings.home} and would be lost with it; choose another"
        )
    if settings.database_url is None and not exists(settings.home):
        raise StoreError(f"there is no database in {settings.home}, so nothing to back up; is URBAN_REID_HOME right?")
    if not folder.exists():
        make_folders(folder)
    elif any(folder.iterdir()) and not (folder / _LOCK).exists():
        raise InputError(f"{folder} is not empty and holds no backup; choose a new or an empty folder")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with open_lock(folder / _LOCK) as lock:
        if not try_lock(lock):
            raise InputError(f"another program is writing a backup into {folder}")
        yield


def _began(connection: Connection) -> datetime | None:
    found: datetime | None = connection.scalar(text("SELECT at FROM audit ORDER BY id LIMIT 1"))
    return found


def _dump(store: Store, path: Path, tell: Tell) -> _Snapshot:
    """Writes the dump; what the same snapshot says."""
    with database_of(store.settings) as database, store.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        name, taken_at, server = connection.execute(
            text("SELECT pg_export_snapshot(), now(), current_setting('server_version')")
        ).one()
        tell("writing the dump of the database", 0, 0)
        dump.write_dump(database, path, snapshot=name)
        tell("reading the decisions", 0, 0)
        revision = schema.current(connection)
        assert revision is not None
        store_of_crops = CropStore(store.settings)
        named = connection.execution_options(yield_per=10_000).execute(_PICTURES, {"features": SOURCE})
        pictures = {
            str(store_of_crops.path(Place(owner, day), bytes(picture)).relative_to(store_of_crops.root))
            for picture, owner, day in named
        }
        return _Snapshot(
            taken_at=taken_at,
            revision=revision,
            postgresql=server.split()[0],
            began=_began(connection),
            decision_digest=decision_digest(connection),
            pictures=pictures,
            models={name: bytes(digest) for name, digest in connection.execute(text("SELECT name, digest FROM model"))},
        )


def _copy_files(settings: Settings, folder: Path, copied: _Copied, tell: Tell) -> Iterator[StoredFile]:
    """Copies what is not there yet; yields each file of the data directory. Damaged pictures are left out."""
    paths = [(top, path) for top in FOLDERS for path in walk(settings.home / top)]
    for done, (top, path) in enumerate(paths):
        tell("files copied or found there", done, len(paths))
        within = path.relative_to(settings.home / top)
        try:
            known = named_hash(within) if top == "crops" else file_hash(path)
            if known is None:  # no picture: a part of one that is just being written
                continue
            to = object_path(folder, known)
            if known not in copied.objects and not holds(to, known):
                copied.bytes += copy_whole(path, to, known)
                copied.files += 1
            size = to.stat().st_size
        except (DamagedFile, FileNotFoundError):  # a picture removed meanwhile; if a row names it, it is reported
            continue
        copied.objects.add(known)
        copied.listed += 1
        copied.listed_bytes += size
        if top == "crops":
            copied.pictures.add(str(within))
        yield StoredFile(path=str(Path(top) / within), sha256=known, bytes=size)


def _content(path: Path) -> Content:
    return Content(name=path.name, sha256=file_hash(path), bytes=path.stat().st_size)


def _prune(folder: Path, manifest: Manifest, objects: set[str]) -> None:
    """Removes what the new manifest does not name: what was erased from the city leaves its backup too."""
    named = {manifest.database.name, manifest.files.name}
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in named:
            path.unlink()
    for path in walk(folder / "objects"):
        if named_hash(path.relative_to(folder)) not in objects:
            path.unlink()


def as_plain(done: BackedUp) -> dict[str, Any]:
    """For --json."""
    return asdict(done) | {"manifest": done.manifest.model_dump(mode="json")}
