"""Writes a backup, while the city may be at work.

The dump is taken from one snapshot first. Then the files are copied: pictures never change, and what the rows of the
snapshot name was there before them.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.backup.database import database_of
from pipeline.backup.keys import BackupKey, backup_key, keep_key_file
from pipeline.backup.manifest import (
    FOLDERS,
    MANIFEST,
    Content,
    Manifest,
    StoredFile,
    read_files,
    read_manifest,
    settings_that_matter,
    write_manifest,
)
from pipeline.backup.objects import (
    DamagedFile,
    copy_whole,
    file_hash,
    holds,
    named_hash,
    object_hash,
    object_path,
    walk,
)
from pipeline.city.decision_digest import decision_digest
from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import PROBES, CropStore, Place
from pipeline.encryption.sealed import seal
from pipeline.files.files import KINDS
from pipeline.governance.audit import Action, audit
from pipeline.ingest.features import SOURCE
from pipeline.registry.folders import is_whole
from pipeline.store import Store, dump, schema
from pipeline.store.embedded_home import exists
from schemas.disk import alone, make_folders, replacing
from schemas.errors import InputError, StoreError
from schemas.settings import Settings

#: Told with what is being done, how much of it is done, and how much there is (0: not known).
Tell = Callable[[str, int, int], None]

_LOCK = "backup.lock"
#: Names that a backup writes beside its manifest.
_OURS = re.compile(r"(database|files)-[0-9TZ]+\.(dump|jsonl)(\.partial)?")

#: Pictures with the parts of their place, and whether they were given up as gone.
_PICTURES = text(
    "SELECT picture, split_part(camera, '/', 1), day, picture_gone_at IS NOT NULL FROM crop "
    "WHERE withdrawn_at IS NULL AND source <> :features "
    f"UNION SELECT picture, '{PROBES}', (uploaded_at AT TIME ZONE 'UTC')::date, false FROM probe"
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
    pictures: dict[str, bool]  # paths below the crop store's root that rows name; whether they were given up as gone
    models: dict[str, bytes]  # digest by name


def backup(settings: Settings, folder: Path, tell: Tell = lambda *_: None) -> BackedUp:
    """Backs up the city of `settings` into `folder`, which is empty or holds an earlier backup of the same city.

    Writes an audit row first. Raises InputError for a folder that cannot be used, StoreError, HomeError, OSError; then
    an earlier backup in it is as it was.
    """
    _check_place(settings, folder)
    busy = InputError(f"another program is writing a backup into {folder}")
    with Store.open(settings, "urban-reid db backup") as store, alone(folder / _LOCK, busy):
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
        sealing = backup_key(settings, before)
        snapshot = _dump(store, dump_path, sealing.key, tell)
        copied = _Copied()
        lost = _lost_models(settings, snapshot)
        with replacing(list_path, mode=0o600) as unfinished, unfinished.open("w", encoding="utf-8") as lines:
            for file in _copy_files(settings, folder, snapshot, lost, before, sealing, copied, tell):
                lines.write(json.dumps(file.model_dump(), ensure_ascii=False) + "\n")
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
            missing_pictures=sum(not gone and p not in copied.pictures for p, gone in snapshot.pictures.items()),
            missing_models=tuple(sorted(lost - copied.models)),
            key=sealing.wrapped.hex(),
            pictures_url=settings.pictures_url,
        )
        keep_key_file(settings, folder)
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
        self.models: set[str] = set()

    def listed_file(self, folder: Path, path: str, sha256: str, sealed: bool) -> StoredFile:
        """Counts a file, whose object the backup has by now."""
        size = object_path(folder, sha256).stat().st_size
        self.objects.add(sha256)
        self.listed += 1
        self.listed_bytes += size
        top, _, within = path.partition("/")
        if top == "crops":
            self.pictures.add(within)
        if top == "models":
            self.models.add(within.partition("/")[0])
        return StoredFile(path=path, sha256=sha256, bytes=size, sealed=sealed)


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


def _began(connection: Connection) -> datetime | None:
    found: datetime | None = connection.scalar(text("SELECT at FROM audit ORDER BY id LIMIT 1"))
    return found


def _dump(store: Store, path: Path, key: bytes, tell: Tell) -> _Snapshot:
    """Writes the dump, sealed; what the same snapshot says."""
    with database_of(store.settings) as database, store.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        name, taken_at, server = connection.execute(
            text("SELECT pg_export_snapshot(), now(), current_setting('server_version')")
        ).one()
        tell("writing the dump of the database", 0, 0)
        dump.write_dump(database, path, name, partial(seal, key))
        tell("reading the decisions", 0, 0)
        revision = schema.current(connection)
        assert revision is not None
        store_of_crops = CropStore(store.settings)
        pictures = {}
        if store.settings.pictures_url is None:
            named = connection.execution_options(yield_per=10_000).execute(_PICTURES, {"features": SOURCE})
            pictures = {
                _place(store_of_crops, Place(owner, day), bytes(picture)): gone for picture, owner, day, gone in named
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


def _place(crops: CropStore, place: Place, sha256: bytes) -> str:
    """Where a picture is, or was."""
    try:
        return crops.find(place, sha256) or crops.name(place, sha256)
    except StoreError:  # the key of its day is damaged
        return str(crops.earlier_path(place, sha256).relative_to(crops.root))


def _lost_models(settings: Settings, snapshot: _Snapshot) -> set[str]:
    """Models that are not whole in the data directory."""
    return {name for name, digest in snapshot.models.items() if not is_whole(settings.models_dir / name, digest)}


def _is_kept(folder: Path, sha256: str) -> bool:
    return holds(object_path(folder, sha256), sha256)


def _copy_files(
    settings: Settings,
    folder: Path,
    snapshot: _Snapshot,
    lost: set[str],
    before: Manifest | None,
    sealing: BackupKey,
    copied: _Copied,
    tell: Tell,
) -> Iterator[StoredFile]:
    """Copies what is not there yet; yields each file that the backup holds. `lost`: models that are not whole.

    What lies in an object store stays there alone. What is encrypted is copied as it is, all else sealed. What the city
    lost though rows name it stays in the backup, because it may be the last copy. A damaged picture is left out.
    """
    stores = {"crops": CropStore(settings), "context": context_store(settings)}
    tops = [top for top in FOLDERS if settings.pictures_url is None or top not in KINDS]
    paths = [(top, path) for top in tops for path in walk(settings.home / top)]

    def store(source: Path, path: str, key: bytes | None) -> StoredFile:
        known = object_hash(source, key)
        if known not in copied.objects and not _is_kept(folder, known):
            copied.bytes += copy_whole(source, object_path(folder, known), known, key)
            copied.files += 1
        return copied.listed_file(folder, path, known, key is not None)

    for done, (top, path) in enumerate(paths):
        tell("files copied or found there", done, len(paths))
        within = path.relative_to(settings.home / top)
        try:
            if top in stores and not stores[top].is_whole(str(within)):
                continue  # damaged, or no picture but a part of one that is just being written
            if top == "models" and within.parts[0] in lost:
                continue
            encrypted = top == "keys" or (top in stores and named_hash(within) is None)
            yield store(path, f"{top}/{within}", None if encrypted else sealing.key)
        except (DamagedFile, FileNotFoundError):  # a picture removed meanwhile; if a row names it, it is reported
            continue
    for file in _still_named(folder, before, snapshot.pictures.keys() - copied.pictures, lost):
        known = object_path(folder, file.sha256)
        encrypted = file.path.startswith("crops/") and named_hash(Path(file.path)) is None
        if file.sealed or encrypted:
            yield copied.listed_file(folder, file.path, file.sha256, file.sealed)
        else:  # of a backup that was not encrypted
            yield store(known, file.path, sealing.key)


def _still_named(folder: Path, before: Manifest | None, pictures: Set[str], models: set[str]) -> list[StoredFile]:
    """What the backup before holds, undamaged, of these pictures, and of these models if it holds all of one."""
    files: list[StoredFile] = []
    damaged: set[str] = set()
    if before is not None:
        with suppress(InputError):  # that list is damaged
            for file in read_files(folder, before):
                top, _, within = file.path.partition("/")
                model = within.partition("/")[0] if top == "models" else ""
                if model in models or (top == "crops" and within in pictures):
                    files.append(file)
                    if not _is_kept(folder, file.sha256):
                        damaged.add(model or file.path)
    return [file for file in files if not {file.path, file.path.split("/")[1]} & damaged]


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
