"""The data keys of a city: one for each district and day, wrapped, a file each: keys/DISTRICT/DAY.

They lie beside the pictures, in the data directory or in an object store (`pipeline.files`); what wraps them does not.

Destroying the file destroys what it encrypts, wherever copies of that lie without it.
"""

import hmac
import os
import re
import time
from collections.abc import Iterator
from datetime import date

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from pipeline.encryption.key_service import key_file, key_service
from pipeline.files.opening import open_files
from schemas.settings import Settings

_BYTES, _NONCE = 32, 12
#: Before each encrypted content. No encoded picture begins so.
_FORMAT = b"urE1"
_NAME = re.compile(r"[^/]+/\d{4}-\d\d-\d\d")


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
    """The data keys of a city by district (or another owner) and day. Safe for threads, processes and machines.

    Methods raise PicturesUnavailable too, while an object store does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.files = open_files(settings, "keys")
        self._service, self._file = key_service(settings), key_file(settings)
        self._held: dict[str, tuple[str, float, DataKey]] = {}  # stamp of its file, and when that was looked at

    def find(self, owner: str, day: date) -> DataKey | None:
        """None where there is none: not yet, or not any more. Raises HomeError, StoreError as the key service does.

        A key that another machine has destroyed may serve here for seconds (`Files.trusts_stamps_s`).
        """
        name = f"{owner}/{day.isoformat()}"
        held, now = self._held.get(name), time.monotonic()
        if held is not None and now - held[1] < self.files.trusts_stamps_s:
            return held[2]
        # A key that was destroyed and made anew meanwhile is another one.
        if (found := self.files.info(name)) is None:
            self._held.pop(name, None)
            return None
        if held is None or held[0] != found.stamp:
            try:
                wrapped = self.files.read(name)
            except FileNotFoundError:
                return None
            key = DataKey(self._service.unwrap(wrapped, name))
        else:
            key = held[2]
        self._held[name] = found.stamp, now, key
        return key

    def make(self, owner: str, day: date) -> DataKey:
        """The key, made if there is none, and stored for good before it encrypts anything. Raises OSError too."""
        name = f"{owner}/{day.isoformat()}"
        while (found := self.find(owner, day)) is None:
            self.files.create(name, self._service.wrap(os.urandom(_BYTES), name))
        return found

    def destroy(self, owner: str, day: date) -> bool:
        """Overwrites and removes the key, and with it all that it encrypted; False if there is none. Raises OSError.

        A disk may keep what was overwritten, such as flash memory or a file system with snapshots, and so does a bucket
        that keeps versions.
        """
        name = f"{owner}/{day.isoformat()}"
        self._held.pop(name, None)
        return self.files.remove(name, overwrite=True)

    def names(self) -> Iterator[str]:
        """DISTRICT/DAY of all keys, in order."""
        return (name for name in self.files.names() if _NAME.fullmatch(name))

    def are_there(self) -> bool:
        """Whether there are any, as there are once there is a key file."""
        return next(self.names(), None) is not None or not self._file.exists()

    def rewrap(self) -> int:
        """Wraps each key anew that an earlier wrapping key wraps; how many. Killed anywhere, each key can be read."""
        count = 0
        for name in self.names():
            wrapped = self.files.read(name)
            if not self._service.wraps_so(wrapped):
                self.files.write(name, self._service.wrap(self._service.unwrap(wrapped, name), name))
                count += 1
        return count


def _derived(secret: bytes, of: bytes) -> bytes:
    return HKDFExpand(hashes.SHA256(), _BYTES, of).derive(secret)
