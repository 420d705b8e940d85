"""Files of a folder, closed to other users whatever the umask."""

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.files.files import FileInfo
from schemas.disk import locked, make_folders, open_lock, sync_folder, try_lock

_PART, _LOCK = ".part", ".lock"


class Folder:
    """`Files` of a folder. A file is written as a part, synced and renamed."""

    trusts_stamps_s = 0.0  # a look costs next to nothing

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def place(self) -> str:
        return str(self.root)

    def where(self, name: str) -> str:
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Several processes may write the same file at once, so each has a part of its own.

        A part of a picture lies in the folder of its day, because a rename does not leave a folder that is encrypted on
        its own. It is locked until it is complete, so that `sweep` knows that it is used.
        """
        path = self._path(name)
        make_folders(path.parent)
        folder = path.parents[1] if name.count("/") > 1 else path.parent
        while True:
            part = folder / f"{path.parent.name}{path.name}.{uuid.uuid4().hex}{_PART}"
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

    def create(self, name: str, data: bytes) -> bool:
        make_folders(self.root)
        with locked(self.root / _LOCK):
            path = self._path(name)
            if path.exists():
                return False
            self.write(name, data)
            for folder in (path.parent, self.root, self.root.parent):
                sync_folder(folder)
        return True

    def info(self, name: str) -> FileInfo | None:
        try:
            found = self._path(name).stat()
        except FileNotFoundError:
            return None
        return FileInfo(found.st_size, found.st_mtime, f"{found.st_ino} {found.st_mtime_ns}")

    def remove(self, name: str, *, overwrite: bool = False) -> bool:
        """A disk may keep what was overwritten, such as flash memory or a file system with snapshots."""
        path = self._path(name)
        try:
            if overwrite:
                with path.open("r+b") as file:
                    file.write(os.urandom(path.stat().st_size))
                    file.flush()
                    os.fsync(file.fileno())
            path.unlink()
        except FileNotFoundError:
            return False
        if overwrite:
            sync_folder(path.parent)
        return True

    def remove_all(self, names: Sequence[str]) -> int:
        return sum(map(self.remove, names))

    def remove_below(self, folder: str) -> int:
        path = self._path(folder)
        if not path.exists():
            return 0
        count = sum(file.is_file() for file in path.rglob("*"))
        shutil.rmtree(path)
        return count

    def names(self, below: str = "") -> Iterator[str]:
        for path in sorted((self.root / below).rglob("*")):
            if path.is_file() and path.name != _LOCK:
                yield str(path.relative_to(self.root))

    def is_empty(self) -> bool:
        return not self.root.is_dir() or all(path.name == _LOCK for path in self.root.iterdir())

    def sweep(self) -> int:
        parts = (*self.root.glob(f"*/????-??-??/*{_PART}"), *self.root.glob(f"*/*{_PART}"))
        return sum(_remove_if_dead(part) for part in parts)

    def _path(self, name: str) -> Path:
        return Path(f"{self.root}/{name}")  # joined at once, because each picture asks for it


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
