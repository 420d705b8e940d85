"""Pictures that visitors send are decoded beside the console, each in a process with bounds: the one place for all.

What goes on from here are pixels, or a PNG that we made of them. What was sent is decoded nowhere else and not kept.
"""

import logging
import os
import socket
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from threading import BoundedSemaphore, Lock

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PictureError
from schemas.settings import Settings
from urban_reid.console.decoding import FAILED, PIXELS, READY, SIZE, WRONG

#: What decoding one picture may take: memory for each pixel of the largest one and beside them, seconds of a processor
#: and of the clock.
_BYTES_A_PIXEL, _BYTES, _CPU_S, _WALL_S = 32, 128 << 20, 20, 60
#: So many are decoded at once; others wait.
_AT_ONCE = 2
#: Processes that are started for one picture.
_TRIES = 3
#: What the process knows of the environment: no secret, no address.
_KNOWN = ("PYTHONPATH", "LD_LIBRARY_PATH", "LANG")
#: Longest reason that is believed to be one, bytes.
_REASON = 500

_log = logging.getLogger(__name__)


class _Lost(Exception):
    """A picture came to no process: the one that decodes has ended."""


class _NoAnswer(Exception):
    """A process took a picture, and gave no answer within its bounds."""


class Uploads:
    """Decodes what was sent. Safe for threads.

    The process is started with the first picture, or by `warm`, and anew where it has ended; it ends with this object.
    """

    def __init__(self, settings: Settings, *, cpu_s: int = _CPU_S, wall_s: int = _WALL_S) -> None:
        """cpu_s, wall_s: seconds that one picture may take, of a processor and of the clock."""
        self._most_pixels, self._cpu_s, self._wall_s = settings.max_crop_pixels, cpu_s, wall_s
        self._seats, self._lock = BoundedSemaphore(_AT_ONCE), Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._end: weakref.finalize[..., Uploads] | None = None

    def warm(self) -> None:
        """Starts the process, so that the first picture does not wait for it."""
        with self._lock:
            self._started()

    def decode(self, picture: bytes) -> NDArray[np.uint8]:
        """As `reid_core.decoding.decode`: uint8 RGB (h, w, 3). Raises PictureError, for what takes too much too."""
        if not self._seats.acquire(timeout=self._wall_s):
            raise PictureError("many pictures are being read now; send it again in a minute")
        try:
            for _ in range(_TRIES):
                process, asked = self._ask()
                try:
                    return self._answered(asked, picture)
                except _Lost:
                    self._give_up(process)
        except _NoAnswer:
            pass
        finally:
            self._seats.release()
        raise PictureError(
            "the picture cannot be decoded: it is damaged, or takes more memory or time than a picture does"
        )

    def _answered(self, asked: socket.socket, picture: bytes) -> NDArray[np.uint8]:
        """Raises PictureError, _Lost, _NoAnswer."""
        until = time.monotonic() + self._wall_s
        with asked:
            try:
                if _received(asked, 1, until) != READY:
                    raise EOFError
            except (ConnectionError, EOFError):
                raise _Lost from None
            except TimeoutError:
                raise _NoAnswer from None
            try:
                _wait(asked, until)
                asked.sendall(picture)
                asked.shutdown(socket.SHUT_WR)
                return self._read(asked, until)
            except (ConnectionError, EOFError):
                _log.warning("a picture of %d bytes ended the process that decoded it", len(picture))
            except TimeoutError:
                _log.warning("a picture of %d bytes was not decoded within %d s", len(picture), self._wall_s)
            raise _NoAnswer

    def _ask(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """The process, and a socket on which a fork of it takes one picture."""
        here, there = socket.socketpair()
        with there, self._lock:
            process, control = self._started()
            with suppress(ConnectionError):  # the socket is closed then, which says the same
                socket.send_fds(control, [b"p"], [there.fileno()])
        return process, here

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        """Ends what is left of a process that takes no pictures."""
        with self._lock:
            if self._process is process and self._end is not None:
                _log.warning("the process that decodes pictures has ended and is started again")
                self._end()
                self._process = None

    def _started(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._process is None or self._control is None:
            known = {name: os.environ[name] for name in _KNOWN if name in os.environ}
            known |= {"URBAN_REID_MAX_CROP_PIXELS": str(self._most_pixels), "URBAN_REID_HOME": "/nonexistent"}
            memory_bytes = self._most_pixels * _BYTES_A_PIXEL + _BYTES
            control, there = socket.socketpair()
            bounds = [str(one) for one in (there.fileno(), memory_bytes, self._cpu_s, self._wall_s)]
            with there:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "urban_reid.console.decoding", *bounds],
                    env=known | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(there.fileno(),),
                )
            self._process, self._control = process, control
            self._end = weakref.finalize(self, _end, process, control)
        return self._process, self._control

    def _read(self, asked: socket.socket, until: float) -> NDArray[np.uint8]:
        kind = bytes(_received(asked, 1, until))
        if kind == PIXELS:
            height, width = SIZE.unpack(_received(asked, SIZE.size, until))
            if not 0 < height * width <= self._most_pixels:
                raise EOFError
            return np.frombuffer(_received(asked, height * width * 3, until), np.uint8).reshape(height, width, 3)
        reason = _received(asked, _REASON, until, may_be_less=True).decode(errors="replace")
        if kind == WRONG:
            raise PictureError(reason)
        if kind == FAILED:
            _log.error("decoding a picture failed: %s", reason)
        raise EOFError


def _received(asked: socket.socket, count: int, until: float, *, may_be_less: bool = False) -> bytearray:
    """So many bytes; fewer at the end of all where that may be. Raises EOFError, TimeoutError."""
    found = bytearray(count)
    view, at = memoryview(found), 0
    while at < count:
        _wait(asked, until)
        got = asked.recv_into(view[at:])
        if not got and not may_be_less:
            raise EOFError
        if not got:
            break
        at += got
    view.release()
    del found[at:]
    return found


def _wait(asked: socket.socket, until: float) -> None:
    """Bounds the next operation of the socket. Raises TimeoutError where no time is left."""
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    asked.settimeout(left_s)


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.kill()
    process.wait()
