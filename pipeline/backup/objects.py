"""A backup's objects by the SHA-256 of their content, objects/ab/cdef..., so that it is stored and copied once.

An object is a file of the data directory as it is, where that is encrypted, or sealed with the backup's key. The same
file is sealed to the same object, so a further backup copies only what is new, and whoever has no key can tell a
damaged object from a whole one.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipeline.encryption.sealed import Sink, salt_of, seal, unseal
from schemas.disk import make_folders, replacing

_READ_BYTES = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")


class DamagedFile(Exception):
    """The content of a file is not what its hash says."""


def object_path(folder: Path, sha256: str) -> Path:
    """Where the content with this hash (hex) lies in a backup."""
    return folder / "objects" / sha256[:2] / sha256[2:]


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds(path: Path, sha256: str) -> bool:
    """Whether the file is there and its content has this hash."""
    try:
        return file_hash(path) == sha256
    except FileNotFoundError:
        return False


def object_hash(path: Path, key: bytes | None) -> str:
    """SHA-256 (hex) of the object of a file, sealed with `key`; None: as it is. Raises OSError."""
    if key is None:
        return file_hash(path)
    hashing = Hashing()
    _seal(path, hashing, key)
    return hashing.digest.hexdigest()


def copy_whole(source: Path, to: Path, sha256: str, key: bytes | None = None) -> int:
    """Copies a file into its object, whole or not at all, readable by this user only; the object's size in bytes.

    key: to seal it with. Raises DamagedFile if the object has another hash, FileNotFoundError if there is no `source`,
    OSError. The folders of `to` are made as needed, closed to others.
    """
    make_folders(to.parent)
    with replacing(to, mode=0o600) as partial, partial.open("wb") as writing:
        hashing = Hashing(writing)
        if key is None:
            with source.open("rb") as reading:
                shutil.copyfileobj(reading, hashing, _READ_BYTES)
        else:
            _seal(source, hashing, key)
        writing.flush()
        if hashing.digest.hexdigest() != sha256:
            raise DamagedFile(str(source))
    return hashing.size


def bring_back(source: Path, to: Path, sha256: str, key: bytes | None) -> None:
    """Copies an object into its file as `copy_whole` does a file into its object. `key` unseals it.

    Raises BrokenSeal too.
    """
    if key is None:
        copy_whole(source, to, sha256)
        return
    if not holds(source, sha256):
        raise DamagedFile(str(source))
    make_folders(to.parent)
    with source.open("rb") as reading, replacing(to, mode=0o600) as partial, partial.open("wb") as writing:
        unseal(key, reading, writing)


def _seal(path: Path, to: Sink, key: bytes) -> None:
    with path.open("rb") as reading:
        salt = salt_of(key, hashlib.file_digest(reading, "sha256").digest())
        reading.seek(0)
        seal(key, reading, to, salt)


class Hashing:
    """Hashes and counts what is written, and writes it on to a file if there is one."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.digest, self.size, self._file = hashlib.sha256(), 0, file

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return len(data) if self._file is None else self._file.write(data)


def walk(folder: Path) -> Iterator[Path]:
    """The files below a folder that may be missing, in order; nothing that begins with a dot, no links."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def named_hash(relative: Path) -> str | None:
    """The hash (hex) that names an object, or a picture of an earlier version: the end of its path; None for others."""
    found = "".join(relative.parts)[-64:]
    return found if _HASH.fullmatch(found) else None
