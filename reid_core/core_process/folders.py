"""The model and detector folders of a home, found by the digest of what they hold."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ModelFileError

#: Name, inode, size and times of each file of a folder: another one when anything in it was written.
Identity = tuple[tuple[str | int, ...], ...]


class Folders:
    """The folders in `place` by digest. A folder is read and hashed again only when its files have changed.

    `digest`: of a folder; raises ModelFileError for a damaged one.
    """

    def __init__(self, place: Path, digest: Callable[[Path], str]) -> None:
        self._place, self._compute = place, digest
        self._read: dict[Path, tuple[Identity, str | None]] = {}  # None: a damaged one
        self._lock = threading.Lock()

    def find(self, digest: str) -> Path:
        """The folder with this digest. Raises ModelFileError if there is no undamaged one."""
        with self._lock:
            folders = sorted(self._place.glob("[!.]*/")) if self._place.is_dir() else []
            self._read = {folder: self._read[folder] for folder in folders if folder in self._read}
            for folder in folders:
                if self._digest(folder) == digest:
                    return folder
        raise ModelFileError(f"no model {digest[:64]} in {self._place}")

    def _digest(self, folder: Path) -> str | None:
        identity = _identity(folder)
        known = self._read.get(folder)
        if known is None or known[0] != identity:
            try:
                digest = self._compute(folder)
            except (ModelFileError, OSError):
                digest = None  # a damaged one must not hide the others; whoever asks for it learns that it is missing
            known = self._read[folder] = identity, digest
        return known[1]


def _identity(folder: Path) -> Identity:
    found: list[tuple[str | int, ...]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                found.append((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    except OSError:
        return ()  # removed meanwhile
    return tuple(sorted(found))
