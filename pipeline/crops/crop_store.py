"""The crop store: encoded pictures as files, `crops/DISTRICT/DAY/ab/cdef...`; written once, never changed.

DAY is the UTC day of capture, and `abcdef...` the SHA-256 of the picture. So a day of a district is one folder, which
retention can drop. Probes, the pictures that operators upload, lie below `crops/_probes`, by the UTC day of upload.
"""

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from schemas.disk import make_folders, open_lock, try_lock
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

#: Owner of the probes. No district has such a code.
PROBES = "_probes"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: What a file system says that makes no hard links, or no more of them to a file.
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, order=True)
class Place:
    """Where a picture belongs. The same picture in two places is two files."""

    owner: str  # a district's code, or PROBES
    day: date  # UTC, of capture or upload


def place_of_crop(camera: str, captured_at: datetime) -> Place:
    """The place of a crop's picture, from its camera's code."""
    return Place(camera.partition("/")[0], captured_at.astimezone(UTC).date())


def place_of_probe(uploaded_at: datetime) -> Place:
    return Place(PROBES, uploaded_at.astimezone(UTC).date())


class CropStore:
    """Pictures by place and content. A file is complete or absent: it is written as a part, synced and renamed.

    Folders and files are closed to other users, whatever the umask.
    """

    def __init__(self, settings: Settings, root: Path | None = None) -> None:
        """`root`: another folder than that of the crops."""
        self.root = root or settings.crops_dir

    def path(self, place: Place, sha256: bytes) -> Path:
        """The path of the picture with this hash, whether or not it is stored."""
        name = sha256.hex()
        return self.root / place.owner / place.day.isoformat() / name[:2] / name[2:]

    def put(self, place: Place, data: bytes) -> bytes:
        """Stores `data`; returns its SHA-256. Raises HomeError when the disk is full or the folder read-only."""
        sha256 = hashlib.sha256(data).digest()
        path = self.path(place, sha256)
        with self.errors():
            if not path.exists():
                self._write(path, data)
        return sha256

    def get(self, place: Place, sha256: bytes) -> bytes:
        """The encoded picture. Raises StoreError when it is missing or its content does not match its name."""
        path = self.path(place, sha256)
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

    def remove(self, place: Place, sha256: bytes) -> bool:
        """Removes the picture; False if it was not there. Raises HomeError when the folder is read-only."""
        with self.errors():
            try:
                self.path(place, sha256).unlink()
            except FileNotFoundError:
                return False
            return True

    def take_over(self, place: Place, sha256: bytes, file: Path) -> None:
        """Stores the picture that `file` holds, which stays; without a copy where a hard link can be made.

        A file with several links is copied, so that two places share none. Does nothing if the picture is stored, or if
        `file` is missing. Raises HomeError as `put` does.
        """
        path = self.path(place, sha256)
        with self.errors():
            if path.exists() or not file.exists():
                return
            make_folders(path.parent)
            file.chmod(0o600)
            if file.stat().st_nlink == 1:
                try:
                    path.hardlink_to(file)
                    return
                except FileExistsError:
                    return  # stored meanwhile
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
            self._write(path, file.read_bytes())

    def sweep(self) -> int:
        """Removes the parts of processes that were killed while they wrote a picture; returns their number."""
        with self.errors():
            return sum(_remove_if_dead(part) for part in self.root.glob("*/????-??-??/*.part"))

    def _write(self, path: Path, data: bytes) -> None:
        """Writes the file whole. Several processes may write the same crop at once, so each has a part of its own.

        The part lies in the folder of its day. It is locked until it is complete, so that `sweep` knows it is used.
        """
        make_folders(path.parent)
        while True:
            part = path.parent.parent / f"{path.parent.name}{path.name}.{uuid.uuid4().hex}.part"
            with open_lock(part) as file:
                if not try_lock(file) or os.fstat(file.fileno()).st_nlink == 0:
                    continue  # swept before it was locked
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
            return

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns an OSError into a HomeError that says what to do."""
        try:
            yield
        except OSError as error:
            raise self._cannot_store(error) from None

    def _cannot_store(self, error: OSError) -> HomeError:
        if error.errno in _FULL:
            return HomeError(f"no space left for crops in {self.root}: free some and run the command again")
        if error.errno in _READ_ONLY:
            return HomeError(f"{self.root} cannot be written: {error.strerror}; give this user write access")
        return HomeError(f"{self.root}: a crop cannot be stored: {error.strerror}")


def _remove_if_dead(part: Path) -> bool:
    """Removes a part unless a process holds its lock, which the kernel releases however the process ends."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # complete by now
    with os.fdopen(descriptor, "rb") as file:
        if not try_lock(file):
            return False
        part.unlink(missing_ok=True)
        return True
