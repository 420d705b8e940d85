"""Frames of a video file or an RTSP camera, each with its time; streamed, one in memory at a time.

A camera's user and password never stand in an address that anybody else can see: not on the command line, in a log, a
message or the store. They come from the settings, are joined to the address inside this process only, and OpenCV's own
messages are kept from the terminal while it connects.
"""

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import cv2
import numpy as np

from pipeline.crops.quality import MAX_PIXELS
from pipeline.ingest.detectors import Frame
from schemas.errors import InputError
from schemas.settings import Settings

#: When a file begins for which no start is given. Times within it, and against other such files, still hold.
START = datetime(2000, 1, 1, tzinfo=UTC)
OPEN_TIMEOUT_MS = 15_000
READ_TIMEOUT_MS = 15_000


@dataclass
class Frames:
    """An opened video. Iterate once; gives (time, frame (h, w, 3) BGR).

    `total` is how many frames the file says it has, 0 where nobody knows; `read` counts those seen so far.
    """

    name: str  # for messages; without a camera's path, user or password
    capture: cv2.VideoCapture
    live: bool
    start: datetime
    total: int
    per_second: float
    read: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[tuple[datetime, Frame]]:
        try:
            yield from self._latest() if self.live else self._all()
        finally:
            self.capture.release()
        if not self.read:
            raise InputError(f"{self.name}: holds no frame that can be read")

    def _all(self) -> Iterator[tuple[datetime, Frame]]:
        before = -1.0
        while True:
            done, frame = self.capture.read()
            if not done:
                return
            # A file of uneven frames says when each is shown; where it does not, frames are evenly spaced.
            seconds = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not math.isfinite(seconds) or seconds <= before:
                seconds = self.read / self.per_second
            before = seconds
            self.read += 1
            yield self.start + timedelta(seconds=seconds), np.asarray(frame, np.uint8)

    def _latest(self) -> Iterator[tuple[datetime, Frame]]:
        """Always the newest frame, with the time it came at: a slow detector skips frames and does not fall behind."""
        arrived = threading.Condition()
        newest: list[tuple[datetime, Frame]] = []
        ended = False

        def receive() -> None:
            nonlocal ended
            while not ended:
                done, frame = self.capture.read()
                with arrived:
                    if done:
                        newest[:] = [(datetime.now(UTC), np.asarray(frame, np.uint8))]
                    else:
                        ended = True
                    arrived.notify()

        receiver = threading.Thread(target=receive, name="rtsp receiver", daemon=True)
        receiver.start()
        try:
            while True:
                with arrived:
                    arrived.wait_for(lambda: newest or ended)
                    if not newest:
                        return
                    moment, frame = newest.pop()
                self.read += 1
                yield moment, frame
        finally:
            ended = True
            receiver.join(timeout=2 * READ_TIMEOUT_MS / 1000)


def open_frames(source: str, start: datetime | None, settings: Settings) -> Frames:
    """Opens a video file, or a camera's rtsp:// or rtsps:// address.

    `start` is when a file's first frame was taken; a live camera's frames carry the time of their arrival. Raises
    InputError, in words that hold no more of an address than scheme, host and port.
    """
    if re.match(r"rtsps?://", source, re.IGNORECASE):
        if start is not None:
            raise InputError("a start belongs to a file; a live camera's frames carry the time of their arrival")
        return _open_camera(source, settings)
    if "://" in source:
        raise InputError(f"{source.partition('://')[0][:20]}:// is not taken; give a file, or an rtsp:// address")
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with _quiet():
        capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    _check(capture, str(path))
    per_second = capture.get(cv2.CAP_PROP_FPS)
    if not math.isfinite(per_second) or not 0.01 <= per_second <= 1000:
        per_second = 25.0
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    total = int(count) if math.isfinite(count) and 0 < count < 1e9 else 0
    return Frames(str(path), capture, False, start or START, total, per_second)


def _open_camera(address: str, settings: Settings) -> Frames:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise InputError("the camera's address has no usable host; it is written rtsp://host:port/path")
    name = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if "@" in parts.netloc or re.search(r"(user|pass|pwd)\w*=", parts.path + parts.query, re.IGNORECASE):
        raise InputError(
            f"{name}: an address on the command line is seen by every user of the machine; leave user and password "
            "out of it and set URBAN_REID_RTSP_USER and URBAN_REID_RTSP_PASSWORD"
        )
    if settings.rtsp_user is not None and settings.rtsp_password is not None:
        secret = (settings.rtsp_user.get_secret_value(), settings.rtsp_password.get_secret_value())
        parts = parts._replace(netloc=":".join(quote(part, safe="") for part in secret) + "@" + parts.netloc)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
    with _quiet():
        capture = cv2.VideoCapture(parts.geturl(), cv2.CAP_FFMPEG, limits)
    _check(capture, name, "does not answer, or refuses its user and password")
    return Frames(name, capture, True, datetime.now(UTC), 0, capture.get(cv2.CAP_PROP_FPS))


def _check(capture: cv2.VideoCapture, name: str, fault: str = "is no video that can be read") -> None:
    if not capture.isOpened():
        raise InputError(f"{name}: {fault}")
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MAX_PIXELS:
        capture.release()
        raise InputError(f"{name}: frames of {width:.0f} x {height:.0f} pixels are too large")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what FFmpeg writes to the terminal by itself from being seen; an address may stand in it."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
