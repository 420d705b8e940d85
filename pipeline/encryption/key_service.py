"""Who wraps the data keys: the interface of a key service, and the one that is here, a key file.

A data key never lies on a disk but wrapped. The wrapping key stays with its service: another one, such as a hardware
module or a cloud's, is a class with these methods, opened in `key_service`.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.files.files import Files
from pipeline.files.opening import open_files
from schemas.disk import locked, make_folders, sync_folder, write_whole
from schemas.errors import HomeError, StoreError
from schemas.settings import Settings

_BYTES, _ID, _NONCE = 32, 8, 12


class KeyService(Protocol):
    """Wraps data keys with a key that it keeps.

    `of` says what a data key is for; a wrapped key unwraps as the key of nothing else. Methods raise HomeError while
    the service cannot be reached or is not the one that wrapped the key, and StoreError for a wrapped key that is
    damaged.
    """

    def wrap(self, data_key: bytes, of: str) -> bytes: ...

    def unwrap(self, wrapped: bytes, of: str) -> bytes: ...

    def wraps_so(self, wrapped: bytes) -> bool:
        """Whether it was wrapped by the key that wraps now, and not by an earlier one."""

    def name(self) -> str:
        """The name of the key that wraps now, which does not tell it."""

    def renew(self) -> str:
        """Has another key wrap from now on; returns its name. What earlier ones wrapped still unwraps."""


def key_service(settings: Settings) -> KeyService:
    """The service that wraps the keys of this city."""
    return KeyFile(key_file(settings), open_files(settings, "keys"))


def key_file(settings: Settings) -> Path:
    return settings.key_file or settings.home / "key-file"


class KeyFile:
    """A file with a key of 256 bits in hexadecimal, closed to other users; AES-GCM wraps.

    It is made when the first data key is, and never where `keys` holds any of those: then it is missing.
    A renewed key leaves the one before beside it, as NAME.ID, for what it wrapped.
    """

    def __init__(self, path: Path, keys: Files) -> None:
        self.path, self._keys = path, keys

    def wrap(self, data_key: bytes, of: str) -> bytes:
        if not self.path.exists():
            self._make()
        key, nonce = _read(self.path), os.urandom(_NONCE)
        return _id(key) + nonce + AESGCM(key).encrypt(nonce, data_key, of.encode())

    def unwrap(self, wrapped: bytes, of: str) -> bytes:
        name, nonce, sealed = wrapped[:_ID], wrapped[_ID : _ID + _NONCE], wrapped[_ID + _NONCE :]
        key = self._named(name)
        try:
            return AESGCM(key).decrypt(nonce, sealed, of.encode())
        except (InvalidTag, ValueError):
            raise StoreError(f"the key of {of} is damaged: bring it back from a backup") from None

    def wraps_so(self, wrapped: bytes) -> bool:
        return wrapped[:_ID] == _id(_read(self.path))

    def name(self) -> str:
        return _id(_read(self.path)).hex()

    def renew(self) -> str:
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            before = _read(self.path)
            kept = self._earlier(_id(before))
            write_whole(kept, before.hex() + "\n", mode=0o600, sync=True)
            sync_folder(self.path.parent)
            key = AESGCM.generate_key(8 * _BYTES)
            write_whole(self.path, key.hex() + "\n", mode=0o600, sync=True)
            sync_folder(self.path.parent)
        return _id(key).hex()

    def _make(self) -> None:
        if next(self._keys.names(), None) is not None:
            raise HomeError(
                f"the key file {self.path} is missing, and without it no picture can be read: bring it back, or name "
                "its place in URBAN_REID_KEY_FILE"
            )
        try:
            make_folders(self.path.parent)
            with locked(self.path.with_name(f"{self.path.name}.lock")):
                if not self.path.exists():
                    key = AESGCM.generate_key(8 * _BYTES)
                    write_whole(self.path, key.hex() + "\n", mode=0o600, sync=True)
                    sync_folder(self.path.parent)
        except OSError as error:
            raise HomeError(f"the key file {self.path} cannot be written: {error.strerror or error}") from None

    def _named(self, name: bytes) -> bytes:
        """The key of this id: the one that wraps now, or an earlier one."""
        key = _read(self.path)
        if _id(key) == name:
            return key
        earlier = self._earlier(name)
        if not earlier.exists():
            raise HomeError(
                f"the key file {self.path} holds another key than the one that is needed, {name.hex()}: name that "
                "one's place in URBAN_REID_KEY_FILE"
            )
        return _read(earlier)

    def _earlier(self, name: bytes) -> Path:
        return self.path.with_name(f"{self.path.name}.{name.hex()}")


def _id(key: bytes) -> bytes:
    """Names a key without telling it."""
    return hashlib.sha256(b"urban-reid key " + key).digest()[:_ID]


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise HomeError(f"other users can read the key file {path}: close it with `chmod 600 {path}`")
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise HomeError(
            f"the key file {path} is missing: bring it back, or name its place in URBAN_REID_KEY_FILE"
        ) from None
    except OSError as error:
        raise HomeError(f"the key file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise HomeError(f"{path} holds no key: 64 hexadecimal digits are expected; bring back the right file")
    return key
