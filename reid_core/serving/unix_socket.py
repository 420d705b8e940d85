"""HTTP on a Unix socket of a home, which only its owner may open: of the core, search and cameras' processes."""

import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from schemas.disk import open_lock, try_lock
from schemas.errors import CoreError, HomeError

#: Bytes of a Unix socket's address, with its closing zero, on the strictest system.
MAX_SOCKET_PATH = 104


def usable(path: Path) -> Path:
    """The path. Raises HomeError if it is too long for a socket."""
    if len(bytes(path)) >= MAX_SOCKET_PATH:
        raise HomeError(f"{path}: longer than a socket's {MAX_SOCKET_PATH - 1} bytes; shorten URBAN_REID_HOME")
    return path


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, host: str, path: str, timeout_s: float) -> None:
        super().__init__(host, timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        # Assigned before it connects, so that closing this object closes it even if connecting fails.
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_if_up(
    path: Path, method: str, url: str, timeout_s: float, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes] | None:
    """Status and body of the answer of the process that listens at `path`; None where none does.

    Raises ConnectionError, which says why, if it ends meanwhile or does not answer in time.
    """
    connection = UnixConnection("home", str(path), timeout_s)
    try:
        try:
            connection.connect()
        except OSError:  # none, or left by a process that was killed
            return None
        connection.request(method, url, headers=headers or {})
        answered = connection.getresponse()
        return answered.status, answered.read()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(str(error) or type(error).__name__) from None
    finally:
        connection.close()


@contextmanager
def listening(path: Path, process: str) -> Iterator[socket.socket]:
    """A socket at this path, open to its owner only. process: what serves it, such as "a core process".

    Raises CoreError if a process serves it already, HomeError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_lock(path.with_suffix(".lock"))
    except OSError as error:
        raise HomeError(f"{path.parent}: cannot be written ({error.strerror})") from None
    with lock:
        if not try_lock(lock):
            raise CoreError(f"{path}: {process} serves this home already")
        # Who holds the lock serves the home, so a socket that is still there is a dead process's.
        path.unlink(missing_ok=True)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                before = os.umask(0o177)
                try:
                    listener.bind(str(path))
                finally:
                    os.umask(before)
                yield listener
        finally:
            path.unlink(missing_ok=True)
