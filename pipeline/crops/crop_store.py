"""The crop store: encoded pictures as files named by their SHA-256, `crops/ab/cdef...`; written once, never changed."""

import errno
import hashlib
import os
import uuid
from pathlib import Path

from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class CropStore:
    """Pictures by content. A file is complete or absent: it is written beside its place, synced and renamed."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.crops_dir

    def path(self, sha256: bytes) -> Path:
        """The path of the picture with this hash, whether or not it is stored."""
        name = sha256.hex()
        return self.root / name[:2] / name[2:]

    def put(self, data: bytes) -> bytes:
        """Stores `data`; returns its SHA-256. Raises HomeError when the disk is full or the folder read-only."""
        sha256 = hashlib.sha256(data).digest()
        path = self.path(sha256)
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, data)
        except OSError as error:
            raise self._cannot_store(error) from None
        return sha256

    def get(self, sha256: bytes) -> bytes:
        """The encoded picture. Raises StoreError when it is missing or its content does not match its name."""
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"crop {path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(data).digest() != sha256:
            raise StoreError(f"crop {path} is damaged: its content does not match its name")
        return data

    def is_there(self) -> bool:
        """Whether the store's folder exists and holds anything."""
        return self.root.is_dir() and any(self.root.iterdir())

    def remove(self, sha256: bytes) -> bool:
        """Removes the picture; False if it was not there. Raises HomeError when the folder is read-only."""
        try:
            self.path(sha256).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._cannot_store(error) from None
        return True

    def _cannot_store(self, error: OSError) -> HomeError:
        if error.errno in _FULL:
            return HomeError(f"no space left for crops in {self.root}: free some and run the command again")
        if error.errno in _READ_ONLY:
            return HomeError(f"{self.root} cannot be written: {error.strerror}; give this user write access")
        return HomeError(f"{self.root}: a crop cannot be stored: {error.strerror}")


def _write(path: Path, data: bytes) -> None:
    """Writes the file whole. Several processes may write the same crop at once, so each has a part of its own."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
