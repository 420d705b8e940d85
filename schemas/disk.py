"""Files that are written whole or not at all, lock files, and who may read what we write."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def keep_private() -> None:
    """Closes what this process creates from now on to other users. Each program of ours begins with it."""
    os.umask(0o077)


def make_home(home: Path) -> None:
    """Creates the data directory, closed to others, and the folders above it that are missing.

    Root's database runs as another user, who must pass through those.
    """
    for folder in reversed([parent for parent in home.parents if not parent.exists()]):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    home.mkdir(mode=0o700, exist_ok=True)


def make_folders(folder: Path) -> None:
    """Creates a folder and those above it that are missing, all closed to others whatever the umask."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Returns only when the names of the folder's files are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on success that file replaces `path`, on an error it is removed.

    `mode`: permissions of the new file, before the umask. A partial file of a killed process is removed first.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str, *, mode: int = 0o666, sync: bool = False) -> None:
    """Replaces the file at `path` by `content`, whole or not at all; text as UTF-8.

    `sync`: returns only when the content is on the disk, for files without which the home cannot be opened.
    """
    with replacing(path, mode=mode) as partial, partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


#: With less than this a database or a server cannot work, bytes.
_TOO_LITTLE = 4 << 20


def full_disk(path: Path) -> str | None:
    """A clause such as `the disk of /x is full (12 kB are free): ...`, for messages; None where space is left.

    `path`: a folder; where it does not exist, the nearest above it that does.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize
    if free >= _TOO_LITTLE:
        return None
    return f"the disk of {path} is full ({free // 1000} kB are free): make room, and try again"


def replace_link(path: Path, target: Path) -> None:
    """Makes `path` a symbolic link to the folder `target`, at once in place of an earlier link or file."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        partial.symlink_to(target, target_is_directory=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def open_lock(path: Path) -> IO[bytes]:
    """Opens a lock file, created if missing, readable by its owner only. Closing it releases its lock."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb+")


def lock(file: IO[bytes], *, shared: bool = False) -> None:
    """Waits for the lock (flock) of an open lock file. The kernel releases it however its holder ends."""
    fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Takes the lock of an open lock file if no other process holds it. Returns whether it did."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file at `path`, which need not be there and is not made. Raises OSError."""
    try:
        with path.open("rb") as file:
            return not try_lock(file, shared=True)
    except FileNotFoundError:
        return False


@contextmanager
def alone(path: Path, refusal: Exception) -> Iterator[None]:
    """Holds the lock file at `path`; raises `refusal` where another process does."""
    with open_lock(path) as file:
        if not try_lock(file):
            raise refusal
        yield


def unlock(file: IO[bytes]) -> None:
    """Releases the lock of an open lock file."""
    fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock of the lock file at `path`, after waiting for it."""
    with open_lock(path) as file:
        lock(file, shared=shared)
        yield
