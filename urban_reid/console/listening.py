"""The console's socket."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import InputError


@contextmanager
def listen(port: int) -> Iterator[socket.socket]:
    """A socket that listens on loopback; port 0: a free one. Raises InputError if the port is taken."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; --port 0 takes a free one") from None
        listening.listen()
        yield listening
