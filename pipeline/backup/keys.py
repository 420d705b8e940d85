"""The key of a backup, in its manifest, wrapped as the keys of days are."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.backup.manifest import Manifest
from pipeline.encryption.key_service import key_file, key_service
from pipeline.encryption.sealed import new_key
from schemas.disk import write_whole
from schemas.errors import HomeError
from schemas.settings import Settings

_OF = "backup"
_KEY_FILE = "key-file"


@dataclass(frozen=True)
class BackupKey:
    """A backup's key, as it is and wrapped."""

    key: bytes
    wrapped: bytes


def backup_key(settings: Settings, before: Manifest | None) -> BackupKey:
    """The key of the backup before, wrapped by today's key file; a new one where there is none. Raises HomeError."""
    service = key_service(settings)
    key = new_key() if before is None or before.key is None else service.unwrap(bytes.fromhex(before.key), _OF)
    return BackupKey(key, service.wrap(key, _OF))


def brings_key_file(settings: Settings) -> bool:
    """Whether the key file lies in the data directory: then a backup brings it along, or it would be lost with that."""
    return key_file(settings).is_relative_to(settings.home)


def keep_key_file(settings: Settings, folder: Path) -> None:
    """Copies the key file into a backup, where it lies in the data directory; else the backup holds none."""
    if brings_key_file(settings):
        write_whole(folder / _KEY_FILE, key_file(settings).read_bytes(), mode=0o600, sync=True)
    else:
        (folder / _KEY_FILE).unlink(missing_ok=True)


def restored_key(settings: Settings, folder: Path, manifest: Manifest) -> bytes | None:
    """The key of a backup, None of one that is not sealed. A key file that it brings along is put into its place.

    Raises HomeError without the key file.
    """
    if manifest.key is None:
        return None
    file, brought = key_file(settings), folder / _KEY_FILE
    if not file.exists():
        if not brought.exists():
            raise HomeError(
                f"the key file {file} is missing, and without the one of the city that was backed up nothing can be "
                "read: name its copy in URBAN_REID_KEY_FILE"
            )
        write_whole(file, brought.read_bytes(), mode=0o600, sync=True)
    return key_service(settings).unwrap(bytes.fromhex(manifest.key), _OF)
