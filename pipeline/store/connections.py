"""How many of the server's connections a process takes, and waiting for one.

A thread uses up to two at a time: that of a unit's lock, and that of a transaction. It takes a seat with the first, so
that a thread which waits for a seat holds no connection, and threads cannot wait for each other.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from pipeline.store.errors import has_no_slot

#: Threads of a process that hold connections at a time.
SEATS = 8
#: Longest wait for a server all of whose connections are taken, seconds.
PATIENCE_S = 60.0
_POLL_S = 0.25


class Seats:
    """Lets so many threads at a time hold connections. A thread that holds one may take more."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._mine = threading.local()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for a seat, unless this thread has one, and keeps it to the end of the block."""
        held: int = getattr(self._mine, "held", 0)
        if not held:
            self._free.acquire()
        self._mine.held = held + 1
        try:
            yield
        finally:
            self._mine.held -= 1
            if not self._mine.held:
                self._free.release()


def patient(connect: Callable[[], Any], where: str) -> Callable[[], Any]:
    """`connect`, which waits with one line on stderr while all of the server's connections are taken."""

    def connected() -> Any:
        until, told = time.monotonic() + PATIENCE_S, False
        while True:
            try:
                return connect()
            except psycopg2.OperationalError as error:
                if not has_no_slot(error) or time.monotonic() > until:
                    raise
            if not told:
                sys.stderr.write(
                    f"waiting for {where}: all its connections are taken; end programs that use it, or raise its "
                    f"max_connections; giving up after {PATIENCE_S:.0f} s\n"
                )
                told = True
            time.sleep(_POLL_S)

    return connected
