"""The crop store: encoded pictures as encrypted files, `crops/DISTRICT/DAY/ab/cdef...`; written once, never changed.

DAY is the UTC day of capture. The key of district and day encrypts the picture, and makes the name `abcdef...` of its
SHA-256. So a day of a district is one folder and one key, which retention drops. Probes, the pictures that operators
upload, lie below `crops/_probes`, by the UTC day of upload.

Pictures of version 0.2 or earlier lie there as they are, by their SHA-256, until `encrypt_earlier` has been there.
"""

import errno
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline.encryption.data_keys import DataKeys
from schemas.disk import make_folders, open_lock, try_lock
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

#: Owner of the probes. No district has such a code.
PROBES = "_probes"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: Names of pictures: encrypted, and those of an earlier version.
_NAME, _EARLIER = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
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
        self._keys = DataKeys(settings)

    def path(self, place: Place, sha256: bytes) -> Path:
        """The path of the picture with this hash, whether or not it is stored. Raises as `get`, without its reasons."""
        key = self._keys.find(place.owner, place.day)
        return self.earlier_path(place, sha256) if key is None else self._path(place, key.name(sha256))

    def earlier_path(self, place: Place, sha256: bytes) -> Path:
        """Where an earlier version stored the picture with this hash, not encrypted."""
        return self._path(place, sha256.hex())

    def find(self, place: Place, sha256: bytes) -> Path | None:
        """The file of the picture with this hash; None if it is not stored."""
        paths = self.path(place, sha256), self.earlier_path(place, sha256)
        return next((path for path in paths if path.exists()), None)

    def put(self, place: Place, data: bytes) -> bytes:
        """Stores `data`; returns its SHA-256. Raises HomeError when the disk is full or the folder read-only."""
        sha256 = hashlib.sha256(data).digest()
        with self.errors():
            key = self._keys.make(place.owner, place.day)
            name = key.name(sha256)
            path = self._path(place, name)
            if not path.exists():
                self._write(path, key.encrypt(data, name))
        return sha256

    def get(self, place: Place, sha256: bytes) -> bytes:
        """The encoded picture. Raises StoreError when it is missing or was changed, HomeError without the key file."""
        key = self._keys.find(place.owner, place.day)
        name = sha256.hex() if key is None else key.name(sha256)
        path = self._path(place, name)
        try:
            data = None if key is None else _read(path)
            if data is None:
                earlier = self.earlier_path(place, sha256)
                if (plain := _read(earlier)) is not None:
                    if hashlib.sha256(plain).digest() != sha256:
                        raise _damaged(earlier)
                    return plain
                data = path.read_bytes()  # it was encrypted meanwhile, or is nowhere
            data = None if key is None else key.decrypt(data, name)
        except OSError as error:
            why = "its day has no key (any more)" if key is None else error.strerror
            raise StoreError(f"crop {path} cannot be read: {why}") from None
        if data is None:
            raise _damaged(path)
        return data

    def is_whole(self, path: Path) -> bool | None:
        """Whether a file of the store is an undamaged picture; None if it is none: a part, or somebody else's file.

        Raises OSError, and HomeError without the key file.
        """
        parts = path.relative_to(self.root).parts
        name = "".join(parts[-2:])
        if _EARLIER.fullmatch(name):
            return hashlib.sha256(path.read_bytes()).hexdigest() == name
        if len(parts) == 4 and _NAME.fullmatch(name):
            try:
                key = self._keys.find(parts[0], date.fromisoformat(parts[1]))
            except StoreError:
                return False
            return key is not None and key.decrypt(path.read_bytes(), name) is not None
        return None

    def is_there(self) -> bool:
        """Whether the store's folder exists and holds anything, and the folder of keys where pictures are encrypted."""
        return self.root.is_dir() and any(self.root.iterdir()) and self._keys.are_there()

    def remove(self, place: Place, sha256: bytes) -> bool:
        """Removes the picture; False if it was not there. Raises HomeError when the folder is read-only."""
        with self.errors():
            paths = {self.path(place, sha256), self.earlier_path(place, sha256)}
            return sum(map(_removed, paths)) > 0

    def take_over(self, place: Place, sha256: bytes, file: Path) -> None:
        """Stores the picture that `file` holds as an earlier version did, not encrypted; `file` stays.

        Without a copy where a hard link can be made. A file with several links is copied, so that two places share
        none. Does nothing if the picture is stored, or if `file` is missing. Raises HomeError as `put` does.
        """
        path = self.earlier_path(place, sha256)
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

    def encrypt_earlier(self, place: Place, sha256: bytes) -> bool:
        """Encrypts a picture that an earlier version stored, beside the file of which it is read, which stays.

        False if that is damaged or gone. Raises HomeError as `put` does.
        """
        with self.errors():
            try:
                data = self.earlier_path(place, sha256).read_bytes()
            except FileNotFoundError:
                return False
            return hashlib.sha256(data).digest() == sha256 and self.put(place, data) == sha256

    def _path(self, place: Place, name: str) -> Path:
        return Path(f"{self.root}/{place.owner}/{place.day.isoformat()}/{name[:2]}/{name[2:]}")

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


def _read(path: Path) -> bytes | None:
    """None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _damaged(path: Path) -> StoreError:
    return StoreError(f"crop {path} is damaged: its content does not match its name")


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


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
