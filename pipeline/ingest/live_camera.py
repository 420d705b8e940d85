"""Frames of an RTSP camera, each with its time of arrival by the wall clock and by a steady one.

A camera's user and password appear in no address that others can see: not on the command line, in a log, a message or
the store. They come from the settings and are joined to the address inside this process only.
"""

import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import quote, urlsplit

import cv2
import numpy as np

from pipeline.ingest.capture import open_capture
from pipeline.ingest.clocks import ArrivalClock
from reid_core.detection import Frame
from schemas.errors import InputError
from schemas.settings import Settings

OPEN_TIMEOUT_MS = 15_000
READ_TIMEOUT_MS = 15_000


class LiveCamera:
    """A camera's stream. Iterate once; gives (time of arrival, time since it was opened, frame (h, w, 3) BGR).

    `passed_over` counts the frames that were left out because a newer one came while an earlier one was looked at.
    `clock` gives the times; `notes` says when the machine's clock was set meanwhile.

    Raises InputError in words that hold no more of the address than scheme, host and port.
    """

    live = True
    total = 0  # frames; not known

    def __init__(self, address: str, settings: Settings) -> None:
        self.read = self.passed_over = 0
        self.clock = ArrivalClock()
        self.notes = self.clock.notes
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host:
            raise InputError("the camera's address has no usable host; it is written rtsp://host:port/path")
        self.name = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        if "@" in parts.netloc or re.search(r"(user|pass|pwd)\w*=", parts.path + parts.query, re.IGNORECASE):
            raise InputError(
                f"{self.name}: an address on the command line is seen by every user of the machine; leave user and "
                "password out of it and set URBAN_REID_RTSP_USER and URBAN_REID_RTSP_PASSWORD"
            )
        if settings.rtsp_user is not None and settings.rtsp_password is not None:
            secret = (settings.rtsp_user.get_secret_value(), settings.rtsp_password.get_secret_value())
            parts = parts._replace(netloc=":".join(quote(part, safe="") for part in secret) + "@" + parts.netloc)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
        fault = "does not answer, or refuses its user and password"
        self._capture = open_capture(parts.geturl(), self.name, fault, limits)

    def __iter__(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        try:
            yield from self._newest()
        finally:
            self._capture.release()
        if not self.read:
            raise InputError(f"{self.name}: sends no frame that can be read")

    def last_moment(self) -> None:
        """When the stream ends is not known."""

    def _newest(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        """Always the newest frame: a slow detector skips frames and does not fall behind."""
        arrived = threading.Condition()
        newest: list[tuple[datetime, timedelta, Frame]] = []
        ended = False

        def receive() -> None:
            nonlocal ended
            while not ended:
                done, frame = self._capture.read()
                with arrived:
                    if done:
                        self.passed_over += len(newest)
                        newest[:] = [(*self.clock.read(), np.asarray(frame, np.uint8))]
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
                    arrival = newest.pop()
                self.read += 1
                yield arrival
        finally:
            ended = True
            receiver.join(timeout=2 * READ_TIMEOUT_MS / 1000)
