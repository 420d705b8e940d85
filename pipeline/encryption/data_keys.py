"""The data keys of a data directory: one for each district and day, wrapped, a file each: keys/DISTRICT/DAY.

Destroying the file destroys what it encrypts, wherever copies of that lie without it.
"""

import hmac
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from pipeline.encryption.key_service import KEYS, key_file, key_service
from schemas.disk import locked, make_folders, sync_folder, write_whole
from schemas.settings import Settings

_BYTES, _NONCE = 32, 12
#: Before each encrypted content. No encoded picture begins so.
_FORMAT = b"urE1"


class DataKey:
    """A data key, unwrapped: encrypts contents by AES-256-GCM under random nonces, and names them.

    A content can be decrypted under the name only that it was encrypted for, so files that were exchanged are found.
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(_derived(secret, b"contents"))
        self._names = _derived(secret, b"names")

    def name(self, sha256: bytes) -> str:
        """The name of the content with this hash, 32 hexadecimal digits: HMAC-SHA256, of which 128 bits are kept.

        Without the key it says nothing, not even whether a picture that somebody has is among the files.
        """
        return hmac.digest(self._names, sha256, "sha256")[:16].hex()

    def encrypt(self, data: bytes, name: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, data, _FORMAT + name.encode())

    def decrypt(self, data: bytes, name: str) -> bytes | None:
        """The content; None if it was changed, or is another one's."""
        start = len(_FORMAT) + _NONCE
        if not data.startswith(_FORMAT):
            return None
        try:
            return self._cipher.decrypt(data[len(_FORMAT) : start], data[start:], _FORMAT + name.encode())
        except (InvalidTag, ValueError):
            return None


class DataKeys:
    """The data keys of a data directory by district (or another owner) and day. Safe for threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.home / KEYS
        self._service, self._file = key_service(settings), key_file(settings)
        self._held: dict[tuple[str, date], tuple[tuple[int, int], DataKey]] = {}

    def path(self, owner: str, day: date) -> Path:
        return Path(f"{self.root}/{owner}/{day.isoformat()}")  # joined at once, because each picture asks for it

    def find(self, owner: str, day: date) -> DataKey | None:
        """None where there is none: not yet, or not any more. Raises HomeError, StoreError as the key service does."""
        path = self.path(owner, day)
        try:
            found = path.stat()
            stamp = found.st_ino, found.st_mtime_ns  # a key that was destroyed and made anew meanwhile is another one
            held = self._held.get((owner, day))
            wrapped = path.read_bytes() if held is None or held[0] != stamp else None
        except FileNotFoundError:
            return None
        if wrapped is not None:
            held = self._held[owner, day] = stamp, DataKey(self._service.unwrap(wrapped, _of(path)))
        assert held is not None
        return held[1]

    def make(self, owner: str, day: date) -> DataKey:
        """The key, made if there is none, and on the disk before anything is encrypted with it. Raises OSError too."""
        while (found := self.find(owner, day)) is None:
            path = self.path(owner, day)
            make_folders(path.parent)
            with locked(self.root / ".lock"):
                if not path.exists():
                    write_whole(path, self._service.wrap(os.urandom(_BYTES), _of(path)), mode=0o600, sync=True)
                    for folder in (path.parent, self.root, self.root.parent):
                        sync_folder(folder)
        return found

    def destroy(self, owner: str, day: date) -> bool:
        """Overwrites and removes the key, and with it all that it encrypted; False if there is none. Raises OSError.

        A disk may keep what was overwritten, such as flash memory or a file system with snapshots.
        """
        path = self.path(owner, day)
        self._held.pop((owner, day), None)
        if not path.exists():
            return False
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_folder(path.parent)
        return True

    def paths(self) -> Iterator[Path]:
        """The files of all keys, in order."""
        return (path for path in sorted(self.root.glob("*/????-??-??")) if path.is_file())

    def are_there(self) -> bool:
        """Whether the folder of keys holds any, as it does once there is a key file."""
        return next(self.paths(), None) is not None or not self._file.exists()

    def rewrap(self) -> int:
        """Wraps each key anew that an earlier wrapping key wraps; how many. Killed anywhere, each key can be read."""
        count = 0
        with locked(self.root / ".lock"):
            for path in self.paths():
                wrapped = path.read_bytes()
                if not self._service.wraps_so(wrapped):
                    anew = self._service.wrap(self._service.unwrap(wrapped, _of(path)), _of(path))
                    write_whole(path, anew, mode=0o600, sync=True)
                    count += 1
        return count


def _of(path: Path) -> str:
    """What a key is for: district and day."""
    return f"{path.parent.name}/{path.name}"


def _derived(secret: bytes, of: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), _BYTES, of).derive(secret)
