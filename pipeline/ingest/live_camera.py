"""Frames of an RTSP camera, each with its time of arrival by the wall clock and by a steady one; for as long as asked.

A stream that ends, stalls, sends what cannot be decoded, refuses its password or is not there is opened again, with
pauses that grow and that chance spreads, until the reader stops.

A camera's user and password appear in no address that others can see: not on the command line, in a log, a message or
the store. They are joined to the address inside this process only, and no error of FFmpeg's is passed on, because the
address stands in it.
"""

import errno
import os
import random
import re
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import SplitResult, urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.ingest.capture import MAX_FRAME_PIXELS
from pipeline.ingest.clocks import ArrivalClock
from pipeline.ingest.hardware import PROCESSOR, Decoding
from pipeline.ingest.pace import Pace
from reid_core.detection import Frame
from schemas.errors import InputError
from schemas.feeds import shown_address
from schemas.text import said

OPEN_WITHIN_S = 15.0
#: A stream that gives no frame for so long is opened again.
STALLED_AFTER_S = 10.0
#: Pauses before a stream is opened again, the last one for ever; chance makes each up to half as long again.
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
#: `urban-reid ingest video` gives up a stream that has given no frame for so long.
PATIENCE_S = 60.0
MOST_NOTES = 100

#: Without `fpsprobesize` FFmpeg reads two seconds before it gives the first frame, and all of these come at once.
OPTIONS = {"rtsp_transport": "tcp", "analyzeduration": "1000000", "fpsprobesize": "0"}

#: Called with whether the stream is up, since when, and in words why it is not.
Tell = Callable[[bool, datetime, str], None]


class LiveCamera:
    """A camera's stream. Iterate once; gives (time of arrival, time since it was opened, frame (h, w, 3) BGR).

    `address` is asked each time that the stream is opened, so that a new password counts; `name` is what others may see
    of it. At most `looks_per_s` frames a second are given, always the newest; `passed_over` counts those that should
    have been given and came while an earlier one was looked at, `lost` those that could not be decoded. `clock` gives
    the times; `notes` says when the machine's clock was set, and when the stream was lost. `clock_offset_s`: by
    how much the camera's clock is ahead of ours, where the stream states its time, else None. `connections` counts how
    often the stream was opened.

    `decoding`: what decodes. Where hardware gives no frame the processor is tried at once, and `say` gets a line, once;
    without `say` it is one of the notes.

    Ends when `stop` is set. With `patience_s` it also ends when there was no frame for so long, and `gone` says why;
    InputError is raised when the first try fails, or no frame comes at all.
    """

    live = True
    total = 0  # frames; not known

    def __init__(
        self,
        address: Callable[[], str],
        name: str,
        *,
        looks_per_s: float,
        patience_s: float | None = None,
        stop: threading.Event | None = None,
        tell: Tell = lambda *_: None,
        decoding: Decoding = PROCESSOR,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.name, self.gone = name, ""
        self.read = self.passed_over = self.lost = self.connections = 0
        self.clock = ArrivalClock()
        self.notes = self.clock.notes
        self.clock_offset_s: float | None = None
        self.last_frame_at: datetime | None = None
        self._address, self._pace = address, Pace(looks_per_s)
        self._patience_s, self._stop, self._tell = patience_s, stop or threading.Event(), tell
        self._decoding, self._say = decoding, say or self.notes.append
        self._hardware_failed = self._hardware_said = False  # at this opening of the stream; ever
        self._arrived = threading.Condition()
        self._newest: tuple[datetime, timedelta, av.VideoFrame] | None = None
        self._last_frame = timedelta()  # by the steady clock; the opening of the stream before the first
        self._failed, self.is_up = "", False

    def __iter__(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        receiver = threading.Thread(target=self._receive, name="rtsp receiver", daemon=True)
        receiver.start()
        waited_from = self.clock.since()
        try:
            while not self._stop.is_set():
                with self._arrived:
                    self._arrived.wait_for(lambda: self._newest or self._stop.is_set(), timeout=0.5)
                    arrival, self._newest = self._newest, None
                if arrival is None:
                    if self._is_given_up(waited_from):
                        return
                    continue
                moment, since, frame = arrival
                self.read += 1
                waited_from = since
                yield moment, since, np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        finally:
            self._stop.set()
            receiver.join(timeout=OPEN_WITHIN_S)

    def last_moment(self) -> None:
        """When the stream ends is not known."""

    def _is_given_up(self, waited_from: timedelta) -> bool:
        if self._patience_s is None:
            return False
        waited_s = (self.clock.since() - waited_from).total_seconds()
        if self._failed and not self.read:
            raise InputError(f"{self.name}: {self._failed}")
        if waited_s < self._patience_s:
            return False
        self.gone = self._failed or "sends no frame that can be read"
        if not self.read:
            raise InputError(f"{self.name}: {self.gone}")
        return True

    def _receive(self) -> None:
        """Reads the stream, and opens it again whenever it is lost."""
        failures = 0
        while not self._stop.is_set():
            before = self.connections
            opened = self._last_frame = self.clock.since()
            accelerator = None if self._hardware_failed else self._decoding.accelerator()
            try:
                with av.open(
                    self._address(), options=OPTIONS, timeout=(OPEN_WITHIN_S, STALLED_AFTER_S), hwaccel=accelerator
                ) as container:
                    self._read(container)
                reason = "ended the stream"
            except (av.FFmpegError, OSError) as error:
                reason = fault_of(error, opened=self.connections > before)
            except (_LostError, InputError) as lost:  # the second where there is no password
                reason = str(lost)
            except Exception as error:  # the thread must not end; of its message nothing is said, see above
                reason = f"unexpected {type(error).__name__}"
            if self._stop.is_set():
                return
            # It may be the hardware's fault.
            self._hardware_failed = accelerator is not None and self.connections == before
            if self._hardware_failed:
                continue
            self._failed = reason
            self._tell(False, self.last_frame_at or datetime.now(UTC), reason)
            lasted_s = (self._last_frame - opened).total_seconds()
            failures = 0 if self.is_up and lasted_s >= STALLED_AFTER_S else failures + 1
            self.is_up = False
            pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            self._stop.wait(pause_s * random.uniform(1, 1.5))  # nosec B311

    def _read(self, container: InputContainer) -> None:
        """Offers the frames of an open stream until it ends. Raises _LostError, or FFmpeg's errors."""
        if not container.streams.video:
            raise _LostError("has no video")
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        for packet in container.demux(video):
            if self._stop.is_set():
                return
            moment, since = self.clock.read()
            self._read_clock(packet, moment)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                frames = []
                self.lost += 1
            for frame in frames:
                if frame.width * frame.height > MAX_FRAME_PIXELS:
                    raise _LostError(f"sends frames of {frame.width} x {frame.height} pixels, which are too large")
                if frame.is_corrupt:
                    self.lost += 1
                    continue
                self._offer(moment, since, frame)
            if (since - self._last_frame).total_seconds() > STALLED_AFTER_S:
                raise _LostError("sends nothing that can be decoded")

    def _offer(self, moment: datetime, since: timedelta, frame: av.VideoFrame) -> None:
        before, self.last_frame_at, self._last_frame = self.last_frame_at, moment, since
        if not self.is_up:
            if before is not None and len(self.notes) < MOST_NOTES:
                gone_s = (moment - before).total_seconds()
                self.notes.append(f"no frames for {gone_s:.0f} s from {before:%Y-%m-%d %H:%M:%S} UTC: {self._failed}")
            self.is_up, self._failed = True, ""
            self.connections += 1
            if self._hardware_failed and not self._hardware_said:
                self._hardware_said = True
                self._say(f"{self._decoding.device} gives no frame of this stream: the processor decodes it")
            self._tell(True, moment, "")
        if not self._pace.is_due(since):
            return
        with self._arrived:
            self.passed_over += self._newest is not None
            self._newest = moment, since, frame
            self._arrived.notify()

    def _read_clock(self, packet: "av.Packet[VideoStream]", moment: datetime) -> None:
        """The camera's own time, which RTCP's sender reports state: AVProducerReferenceTime, microseconds of UTC."""
        if packet.has_sidedata("prft"):
            stated_us = struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))[0]
            offset_s = stated_us / 1e6 - moment.timestamp()
            before_s = offset_s if self.clock_offset_s is None else self.clock_offset_s
            self.clock_offset_s = before_s + 0.1 * (offset_s - before_s)


class _LostError(Exception):
    """The stream is of no more use; the message says why, in words that follow the camera's name."""


def fault_of(error: Exception, *, opened: bool) -> str:
    """What an error of FFmpeg's means, in words that follow the camera's name and hold nothing of its address."""
    if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
        return said("refuses its user and password")
    if isinstance(error, av.HTTPNotFoundError):
        return said("has no such stream")
    if isinstance(error, av.HTTPClientError | av.HTTPServerError):
        return said("answers with an error")
    if isinstance(error, av.EOFError):
        return said("ended the stream")
    if isinstance(error, av.ExitError | TimeoutError):
        return said("sends nothing") if opened else said("does not answer")
    if isinstance(error, ConnectionRefusedError):
        return said("does not answer: the connection is refused")
    if isinstance(error, av.InvalidDataError):
        return said("sends what is no video")
    what = said("broke off") if opened else said("does not answer")
    known = (error.errno or 0) if isinstance(error, OSError) else 0
    return f"{what}: {os.strerror(known)}" if known in errno.errorcode and known != errno.EIO else what


def public_name(address: str) -> str:
    """Scheme, host and port of a camera's address: what others may see of it.

    Raises InputError for an address without a host, or with user or password in it.
    """
    parts, name = _parts(address), shown_address(address)
    if "@" in parts.netloc or re.search(r"(user|pass|pwd)\w*=", parts.path + parts.query, re.IGNORECASE):
        raise InputError(
            f"{name}: an address on the command line is seen by every user of the machine; leave user and "
            "password out of it and set URBAN_REID_RTSP_USER and URBAN_REID_RTSP_PASSWORD"
        )
    return name


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        if parts.hostname and (parts.port is None or parts.port):
            return parts
    except ValueError:
        pass
    raise InputError("the camera's address has no usable host; it is written rtsp://host:port/path")
