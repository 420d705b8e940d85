"""Sealed files: content of any size, encrypted and authenticated in parts.

The construction is STREAM of Hoang, Reyhanitabar, Rogaway and Vizar (CRYPTO 2015, section 7): AES-256-GCM of each part
under a nonce of its number and of whether it is the last one. So a part that was changed, moved, removed or added is
found, and a missing end too. A file's key is HKDF-SHA256 of the key and the salt in its head.
"""

import hmac
import os
from collections.abc import Iterator
from typing import IO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_FORMAT = b"urS1"
_SALT, _PART, _TAG = 32, 1 << 20, 16


class BrokenSeal(Exception):
    """The content was changed, is cut off, or was sealed with another key."""


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def salt_of(key: bytes, sha256: bytes) -> bytes:
    """The salt under which the content with this hash is sealed to the same bytes each time."""
    return hmac.digest(key, b"salt " + sha256, "sha256")


def seal(key: bytes, source: IO[bytes], to: Sink, salt: bytes | None = None) -> None:
    """salt: a new one unless given; never the same for two contents."""
    salt = salt or os.urandom(_SALT)
    cipher = _cipher(key, salt)
    to.write(_FORMAT + salt)
    for nonce, part in _parts(source, _PART):
        to.write(cipher.encrypt(nonce, part, None))


def unseal(key: bytes, source: IO[bytes], to: Sink) -> None:
    """Raises BrokenSeal; by then parts that are right were written."""
    head = source.read(len(_FORMAT) + _SALT)
    if len(head) < len(_FORMAT) + _SALT or not head.startswith(_FORMAT):
        raise BrokenSeal
    cipher = _cipher(key, head[len(_FORMAT) :])
    try:
        for nonce, part in _parts(source, _PART + _TAG):
            to.write(cipher.decrypt(nonce, part, None))
    except (InvalidTag, ValueError):
        raise BrokenSeal from None


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt, b"urban-reid sealed file").derive(key))


def _parts(source: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Parts with their nonces; at least one."""
    number, part = 0, _read(source, size)
    while True:
        following = _read(source, size)
        yield number.to_bytes(11, "big") + (b"\0" if following else b"\1"), part
        if not following:
            return
        number, part = number + 1, following


def _read(source: IO[bytes], size: int) -> bytes:
    """`size` bytes, fewer at the end; a pipe gives fewer at a time."""
    found = bytearray()
    while len(found) < size and (more := source.read(size - len(found))):
        found += more
    return bytes(found)
