"""Files by the SHA-256 of their content, objects/ab/cdef..., so that equal content is stored and copied once."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

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


def copy_whole(source: Path, to: Path, sha256: str) -> int:
    """Copies a file whole or not at all, readable by this user only; its size in bytes.

    Raises DamagedFile if its content has another hash, FileNotFoundError if there is no `source`, OSError. The folders
    of `to` are made as needed, closed to others.
    """
    make_folders(to.parent)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, replacing(to, mode=0o600) as partial, partial.open("wb") as writing:
        while part := reading.read(_READ_BYTES):
            digest.update(part)
            writing.write(part)
            size += len(part)
        writing.flush()
        if digest.hexdigest() != sha256:
            raise DamagedFile(str(source))
    return size


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
    """The hash (hex) by which the crop store names a file: the end of its path. None for any other file."""
    found = "".join(relative.parts)[-64:]
    return found if _HASH.fullmatch(found) else None
