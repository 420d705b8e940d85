"""What visitors send is decoded in processes that have little, and end: bombs, crashes, and what goes on afterwards."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_core.decoding import decode
from schemas.errors import PictureError
from schemas.settings import Settings
from tests.helpers.pictures import encoded, noise, scan_bomb
from urban_reid.console.uploads import Uploads

#: The process is there and has answered, or has ended, within so many seconds on any machine.
_SOON_S = 120.0


@pytest.fixture
def uploads(settings: Settings) -> Uploads:
    return Uploads(settings)


def process_of(uploads: Uploads) -> "subprocess.Popen[bytes]":
    process = uploads._process
    assert process is not None
    return process


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + _SOON_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_ready(uploads: Uploads) -> bool:
    """Whether a picture is decoded by now; a process that starts may take longer than one may take."""
    try:
        return uploads.decode(encoded(noise(8, 8), "PNG")).shape == (8, 8, 3)
    except PictureError:
        return False


def forks(process: "subprocess.Popen[bytes]") -> list[int]:
    return [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_the_pixels_are_those_of_the_citys_decoder(uploads: Uploads, kind: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = encoded(noise(64, 32), kind, exif=turned)
    found = uploads.decode(picture)
    assert found.dtype == np.uint8 and (found == decode(picture)).all()
    assert found.shape == ((64, 32, 3) if kind == "BMP" else (32, 64, 3))


@pytest.mark.parametrize("kind, mode", [("JPEG", "RGB"), ("PNG", "RGBA"), ("PNG", "I;16"), ("WEBP", "RGBA")])
def test_the_largest_picture_that_is_taken_is_within_the_bounds(
    uploads: Uploads, settings: Settings, kind: str, mode: str
) -> None:
    side = int(settings.max_crop_pixels**0.5)
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"progressive": True},
        "PNG": {"compress_level": 1},
        "WEBP": {"lossless": True, "method": 0},
    }
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind, **options[kind])
    assert uploads.decode(file.getvalue()).shape == (side, side, 3)


def test_what_is_wrong_with_a_picture_is_said_as_everywhere(uploads: Uploads) -> None:
    for picture in (b"", b"no picture", encoded(noise(4, 4), "PNG"), encoded(noise(64, 32), "JPEG")[:-400]):
        with pytest.raises(PictureError) as expected:
            decode(picture)
        with pytest.raises(PictureError) as found:
            uploads.decode(picture)
        assert str(found.value) == str(expected.value)


def test_a_picture_that_takes_too_long_ends_its_process_and_no_other(settings: Settings) -> None:
    uploads = Uploads(settings, cpu_s=1)
    bomb = scan_bomb()
    assert len(bomb) < 3_000_000
    uploads.warm()
    with ThreadPoolExecutor() as others:
        bombed = others.submit(uploads.decode, bomb)
        for _ in range(3):
            assert uploads.decode(encoded(noise(64, 32), "PNG")).shape == (64, 32, 3)
        with pytest.raises(PictureError, match="more memory or time than a picture does"):
            bombed.result(_SOON_S)
    process = process_of(uploads)
    assert process.poll() is None
    until(lambda: not forks(process))


def test_one_that_sleeps_is_ended_by_the_clock(settings: Settings) -> None:
    uploads = Uploads(settings, wall_s=4)
    until(lambda: is_ready(uploads))
    process = process_of(uploads)
    with ThreadPoolExecutor() as others:
        held = others.submit(uploads.decode, scan_bomb())
        until(lambda: forks(process) or held.done())
        for fork in forks(process):
            os.kill(fork, signal.SIGSTOP)
        with pytest.raises(PictureError, match="more memory or time"):
            held.result(_SOON_S)
    until(lambda: not forks(process))


def is_at_work(fork: int) -> bool:
    """Whether it has its picture: it has computed for a tenth of a second."""
    return int(Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[11]) >= os.sysconf("SC_CLK_TCK") / 10


def test_after_a_crash_the_next_picture_is_decoded(uploads: Uploads) -> None:
    picture = encoded(noise(64, 32), "PNG")
    uploads.warm()
    first = process_of(uploads)
    with ThreadPoolExecutor() as others:
        held = others.submit(uploads.decode, scan_bomb())
        until(lambda: forks(first) and is_at_work(forks(first)[0]))
        os.kill(forks(first)[0], signal.SIGSEGV)
        with pytest.raises(PictureError, match="it is damaged, or takes more"):
            held.result(_SOON_S)
    assert uploads.decode(picture).shape == (64, 32, 3) and process_of(uploads) is first
    first.kill()
    assert uploads.decode(picture).shape == (64, 32, 3) and process_of(uploads) is not first
    first.wait()


def test_it_ends_with_whoever_started_it_and_knows_no_secret(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URBAN_REID_RTSP_PASSWORD", "swordfish")
    uploads = Uploads(settings)
    uploads.warm()
    process = process_of(uploads)
    assert b"swordfish" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    del uploads
    gc.collect()
    assert process.wait(_SOON_S) is not None


_BOUND = """
import json, socket
from urban_reid.console.decoding import _bound
_bound(64 << 20, 5)
said = {}
doors = {"file": lambda: open("/etc/hostname"), "connection": socket.socket, "memory": lambda: bytes(80 << 20)}
for name, what in doors.items():
    try:
        what()
        said[name] = "taken"
    except (OSError, MemoryError) as error:
        said[name] = type(error).__name__
print(json.dumps(said))
"""


def test_within_the_bounds_nothing_is_opened_and_little_memory_had() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", _BOUND], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"file": "OSError", "connection": "OSError", "memory": "MemoryError"}
