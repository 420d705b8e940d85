"""Checks a backup: every hash. That needs no key, for the hashes are of what is encrypted."""

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
    of_dump = _fault_of(folder, manifest.database)
    if of_dump is None and manifest.format == 1:
        of_dump = _fault_of_contents(folder / manifest.database.name)
    of_list = _fault_of(folder, manifest.files)
    of_files = [] if of_list else _faults_of_files(folder, manifest, tell)
    return Verified(manifest, tuple(fault for fault in (of_dump, of_list, *of_files) if fault))


def _fault_of_contents(path: Path) -> str | None:
    try:
        dump.contents(path)
    except StoreError as error:
        return str(error)
    return None


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
