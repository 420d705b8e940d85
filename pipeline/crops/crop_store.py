"""The crop store: encoded pictures as encrypted files, `crops/DISTRICT/DAY/ab/cdef...`; written once, never changed.

They lie in the data directory, or in an object store (`pipeline.files`).

DAY is the UTC day of capture. The key of district and day encrypts the picture, and makes the name `abcdef...` of its
SHA-256. So a day of a district is one folder and one key, which retention drops. Probes, the pictures that operators
upload, lie below `crops/_probes`, by the UTC day of upload.

Pictures of version 0.2 or earlier lie there as they are, by their SHA-256, until `encrypt_earlier` has been there.
"""

import errno
import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline.encryption.data_keys import DataKeys
from pipeline.files.files import Kind
from pipeline.files.opening import open_files
from schemas.disk import make_folders, write_whole
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


#: A picture: where it belongs, and the SHA-256 of its encoded form.
Picture = tuple[Place, bytes]


def place_of_crop(camera: str, captured_at: datetime) -> Place:
    """The place of a crop's picture, from its camera's code."""
    return Place(camera.partition("/")[0], captured_at.astimezone(UTC).date())


def place_of_probe(uploaded_at: datetime) -> Place:
    return Place(PROBES, uploaded_at.astimezone(UTC).date())


class CropStore:
    """Pictures by place and content. A file is complete or absent.

    Methods raise PicturesUnavailable too, while an object store does not answer.
    """

    def __init__(self, settings: Settings, kind: Kind = "crops") -> None:
        self.files = open_files(settings, kind)
        self.root = settings.home / kind  # of earlier versions' pictures, which lie in a data directory only
        self._keys = DataKeys(settings)

    def name(self, place: Place, sha256: bytes) -> str:
        """Name of the file of the picture with this hash, whether or not it is stored. Raises as `DataKeys.find`."""
        key = self._keys.find(place.owner, place.day)
        return _name(place, sha256.hex() if key is None else key.name(sha256))

    def names(self, place: Place, sha256: bytes) -> list[str]:
        """The names that the file of the picture may have: that of now, and that of an earlier version."""
        return list(dict.fromkeys((self.name(place, sha256), _name(place, sha256.hex()))))

    def earlier_path(self, place: Place, sha256: bytes) -> Path:
        """Where an earlier version stored the picture with this hash, not encrypted."""
        return self.root / _name(place, sha256.hex())

    def find(self, place: Place, sha256: bytes) -> str | None:
        """The name of the file of the picture with this hash; None if it is not stored."""
        return next((name for name in self.names(place, sha256) if self.files.info(name) is not None), None)

    def put(self, place: Place, data: bytes) -> bytes:
        """Stores `data`; returns its SHA-256. Raises HomeError when the disk is full or the folder read-only."""
        sha256 = hashlib.sha256(data).digest()
        with self.errors():
            key = self._keys.make(place.owner, place.day)
            name = key.name(sha256)
            if self.files.info(_name(place, name)) is None:
                self.files.write(_name(place, name), key.encrypt(data, name))
        return sha256

    def get(self, place: Place, sha256: bytes) -> bytes:
        """The encoded picture. Raises StoreError when it is missing or was changed, HomeError without the key file."""
        key = self._keys.find(place.owner, place.day)
        name, earlier = sha256.hex() if key is None else key.name(sha256), _name(place, sha256.hex())
        path = _name(place, name)
        try:
            data = None if key is None else self._read(path)
            if data is None:
                if (plain := self._read(earlier)) is not None:
                    if hashlib.sha256(plain).digest() != sha256:
                        raise self._damaged(earlier)
                    return plain
                data = self.files.read(path)  # it was encrypted meanwhile, or is nowhere
            data = None if key is None else key.decrypt(data, name)
        except OSError as error:
            why = "its day has no key (any more)" if key is None else error.strerror or "it is not there"
            raise StoreError(f"crop {self.files.where(path)} cannot be read: {why}") from None
        if data is None:
            raise self._damaged(path)
        return data

    def is_whole(self, file: str) -> bool | None:
        """Whether a file of the store is an undamaged picture; None if it is none: a part, or somebody else's file.

        Raises OSError, and HomeError without the key file.
        """
        parts = file.split("/")
        name = "".join(parts[-2:])
        if _EARLIER.fullmatch(name):
            return hashlib.sha256(self.files.read(file)).hexdigest() == name
        if len(parts) == 4 and _NAME.fullmatch(name):
            try:
                key = self._keys.find(parts[0], date.fromisoformat(parts[1]))
            except StoreError:
                return False
            return key is not None and key.decrypt(self.files.read(file), name) is not None
        return None

    def is_there(self) -> bool:
        """Whether the store holds anything, and that of the keys where pictures are encrypted."""
        return not self.files.is_empty() and self._keys.are_there()

    def remove(self, pictures: Collection[Picture]) -> int:
        """Removes pictures; how many there were, as `Files.remove_all` knows it.

        Raises HomeError when the folder is read-only.
        """
        with self.errors():
            names = [name for place, sha256 in pictures for name in self.names(place, sha256)]
            return min(self.files.remove_all(names), len(pictures))

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
            write_whole(path, file.read_bytes(), mode=0o600, sync=True)

    def sweep(self) -> int:
        """Removes the parts of processes that were killed while they wrote a picture; returns their number."""
        with self.errors():
            return self.files.sweep()

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

    def _read(self, name: str) -> bytes | None:
        """None where there is no such file."""
        try:
            return self.files.read(name)
        except FileNotFoundError:
            return None

    def _damaged(self, name: str) -> StoreError:
        return StoreError(f"crop {self.files.where(name)} is damaged: its content does not match its name")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns an OSError into a HomeError that says what to do."""
        try:
            yield
        except OSError as error:
            raise self._cannot_store(error) from None

    def _cannot_store(self, error: OSError) -> HomeError:
        if error.errno in _FULL:
            return HomeError(f"no space left for crops in {self.files.place}: free some and run the command again")
        if error.errno in _READ_ONLY:
            return HomeError(f"{self.files.place} cannot be written: {error.strerror}; give this user write access")
        return HomeError(f"{self.files.place}: a crop cannot be stored: {error.strerror}")


def _name(place: Place, name: str) -> str:
    return f"{place.owner}/{place.day.isoformat()}/{name[:2]}/{name[2:]}"
