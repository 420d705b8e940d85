"""The crop store: encoded pictures as files named by their SHA-256, `crops/ab/cdef...`; written once, never changed."""

import errno
import hashlib
import os
import uuid
from pathlib import Path
from typing import NoReturn

from fsspec.implementations.local import LocalFileSystem

from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class CropStore:
    """Pictures by content. A file is complete or not there: it is written beside its place, synced and renamed."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.crops_dir
        self._files = LocalFileSystem()

    def path(self, sha256: bytes) -> Path:
        """Where the picture of this hash lies, if it is there."""
        name = sha256.hex()
        return self.root / name[:2] / name[2:]

    def put(self, data: bytes) -> bytes:
        """Keeps `data`; returns its SHA-256. Raises HomeError when the disk is full or the folder read-only."""
        sha256 = hashlib.sha256(data).digest()
        path = self.path(sha256)
        if self._files.exists(path):
            return sha256
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            self._files.makedirs(path.parent, exist_ok=True)
            try:
                with self._files.open(part, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._files.mv(part, path)
            finally:
                if self._files.exists(part):
                    self._files.rm_file(part)
        except OSError as error:
            self._refuse(error)
        return sha256

    def get(self, sha256: bytes) -> bytes:
        """The encoded picture. Raises StoreError when it is missing or is not what its name says."""
        try:
            data: bytes = self._files.cat_file(self.path(sha256))
        except OSError as error:
            raise StoreError(f"crop {self.path(sha256)} cannot be read: {error.strerror or 'missing'}") from None
        if hashlib.sha256(data).digest() != sha256:
            raise StoreError(f"crop {self.path(sha256)} is damaged: its content is not what its name says")
        return data

    def _refuse(self, error: OSError) -> NoReturn:
        if error.errno in _FULL:
            raise HomeError(f"no space left for crops in {self.root}: free some and run the command again") from None
        if error.errno in _READ_ONLY:
            raise HomeError(f"{self.root} cannot be written: {error.strerror}; give this user write access") from None
        raise HomeError(f"{self.root}: a crop cannot be stored: {error.strerror or error}") from None
