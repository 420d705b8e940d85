"""Checks a backup: every hash, and that its dump can be read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.backup.manifest import Content, Manifest, read_files, read_manifest
from pipeline.backup.objects import file_hash, object_path
from pipeline.store import dump
from schemas.errors import InputError, StoreError

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Verified:
    """A backup's manifest, and each fault in words: what is missing or damaged."""

    manifest: Manifest
    faults: tuple[str, ...]


def verify(folder: Path, tell: Tell = lambda *_: None) -> Verified:
    """Reads everything that the backup's manifest names. Raises InputError where there is no manifest to read."""
    manifest = read_manifest(folder)
    tell("checking the dump", 0, 0)
    faults = [fault for part in (manifest.database, manifest.files) if (fault := _fault_of(folder, part)) is not None]
    if not faults:
        try:
            dump.contents(folder / manifest.database.name)
        except StoreError as error:
            faults.append(f"{manifest.database.name} cannot be read: {error}")
    if manifest.files.name not in " ".join(faults):
        faults += _faults_of_files(folder, manifest, tell)
    return Verified(manifest, tuple(faults))


def _fault_of(folder: Path, content: Content) -> str | None:
    try:
        return None if file_hash(folder / content.name) == content.sha256 else f"{content.name} is damaged"
    except OSError as error:
        return f"{content.name} cannot be read: {error.strerror}"


def _faults_of_files(folder: Path, manifest: Manifest, tell: Tell) -> list[str]:
    faults = []
    try:
        for done, file in enumerate(read_files(folder, manifest)):
            tell("files checked", done, manifest.count)
            try:
                if file_hash(object_path(folder, file.sha256)) != file.sha256:
                    faults.append(f"{file.path} is damaged")
            except FileNotFoundError:
                faults.append(f"{file.path} is missing")
            except OSError as error:
                faults.append(f"{file.path} cannot be read: {error.strerror}")
    except InputError as error:
        faults.append(str(error))
    return faults
