"""The process that decodes what visitors send: `python -P -m urban_reid.console.decoding SOCKET MEMORY CPU_S WALL_S`.

It imports the decoder and waits on the socket, a descriptor that it inherits. For each socket that it is sent it forks
once. The fork says that it is there, reads a picture to its end, decodes it and answers; it has the bounds of the
command line, can open no file and no connection, and ends, so that no picture meets what another one left behind. See
`uploads` for the other side. What is said is one byte and what follows it:

    r   it is there, and has its bounds
    p   height and width (uint32, big endian), then the pixels, uint8 RGB
    w   what is wrong with the picture, as `decode` says it
    f   the class of an error that nobody foresaw
"""

import io
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from PIL import Image

from reid_core.decoding import FORMATS, MAX_BYTES, decode
from schemas.errors import PictureError

READY, PIXELS, WRONG, FAILED = b"r", b"p", b"w", b"f"
SIZE = struct.Struct(">II")
#: How often forks are looked after while there are some, seconds.
_LOOK_EVERY_S = 0.5


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the console, which closes the socket
    control = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes, cpu_s, wall_s = (int(one) for one in sys.argv[2:5])
    _rehearse()
    forks: dict[int, float] = {}  # when each of them ends at the latest
    while True:
        ready, _, _ = select.select([control], [], [], _LOOK_EVERY_S if forks else None)
        _look_after(forks)
        if not ready:
            continue
        _, sent, _, _ = socket.recv_fds(control, 1, 1)
        if not sent:
            break
        if (fork := os.fork()) == 0:
            control.close()
            _answer(sent[0], memory_bytes, cpu_s)
        os.close(sent[0])
        forks[fork] = time.monotonic() + wall_s
    for fork in forks:
        os.kill(fork, signal.SIGKILL)


def _rehearse() -> None:
    """Decodes a picture of each format, so that a fork has all that it needs when it can open nothing any more."""
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind in FORMATS:
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, kind, exif=turned)
        decode(file.getvalue())


def _look_after(forks: dict[int, float]) -> None:
    for fork, until in list(forks.items()):
        if time.monotonic() > until:
            os.kill(fork, signal.SIGKILL)
        if os.waitpid(fork, os.WNOHANG)[0]:
            del forks[fork]


def _answer(descriptor: int, memory_bytes: int, cpu_s: int) -> None:
    """What a fork does: one picture, and its end."""
    try:
        with socket.socket(fileno=descriptor) as asking:
            _bound(memory_bytes, cpu_s)
            asking.sendall(READY)
            try:
                with asking.makefile("rb") as sent:
                    pixels = decode(sent.read(MAX_BYTES + 1))
            except PictureError as error:
                asking.sendall(WRONG + str(error).encode())
            except Exception as error:  # the console tells of it
                asking.sendall(FAILED + type(error).__name__.encode())
            else:
                asking.sendall(PIXELS + SIZE.pack(*pixels.shape[:2]))
                asking.sendall(pixels.data)
    finally:
        os._exit(0)


def _bound(memory_bytes: int, cpu_s: int) -> None:
    """Takes from this process what decoding does not need, for good."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    bounds = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,  # a picture in a dump would be kept
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,  # of new ones, connections too
    }
    if pages:
        bounds[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for what, most in bounds.items():
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


if __name__ == "__main__":
    main()
