"""One camera's process: decodes its stream or its files, has people detected, follows them and takes in their crops.

A camera is a process of its own, so that neither a damaged stream nor a slow one touches the others. It tells the
service each second how it fares, and at once when its stream is lost or back.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.cameras.newest import give_always
from pipeline.cameras.outages import Change
from pipeline.cameras.recordings import Outcome, Recording, Watch, done, interrupted, take
from pipeline.cameras.secrets import address_with_secret
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.hardware import decoding
from pipeline.ingest.live_camera import LiveCamera
from pipeline.ingest.looks import Seen, View
from pipeline.ingest.video import ingest_frames, source_of
from pipeline.store import Store
from reid_core.detection import Boxes, Detector, Frame, open_detector
from schemas.disk import keep_private
from schemas.errors import CoreUnavailable, StoreError, UrbanReidError
from schemas.feeds import Feed, State, shown_address
from schemas.settings import Settings

REPORT_EVERY_S = 1.0
#: A folder is looked through again after so long.
LOOK_AGAIN_S = 2.0
#: Looks a second are counted over the last so many seconds.
COUNTED_OVER_S = 30.0
#: A picture that has not changed at all for so long is frozen. Between two key frames a still view may not change.
FROZEN_AFTER_S = 30.0
#: A camera that waits for the core process says so after so long; a busy one answers sooner.
SAY_AFTER_S = 10.0
#: What could not be written is written again after so long.
TRY_AGAIN_S = 1.0
BLACK_MEAN, BLACK_STD = 16.0, 4.0  # gray levels of 255; video's black is 16


@dataclass(frozen=True)
class Report:
    """How the camera fares. `wanted`, `missed`: frames to be looked at so far, and those left out for want of time."""

    state: State
    detail: str = ""
    last_frame_at: datetime | None = None
    looks_per_s: float | None = None
    people: int | None = None
    lag_s: float | None = None
    reconnects: int = 0
    clock_offset_s: float | None = None
    frozen: bool = False
    black: bool = False
    looks: int = 0
    gated: int = 0
    missed: int = 0


@dataclass(frozen=True)
class Said:
    """A line for the log."""

    line: str


def work(feed: Feed, settings: Settings, service: Connection, asking: Connection) -> None:
    """Runs a feed until SIGTERM, until the service is gone, or, of a file, until it is taken in.

    `asking`: whence the service asks for the newest frame.
    """
    keep_private()
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service's business
    camera = _Camera(feed, settings, service, stop)
    threading.Thread(target=give_always, args=(asking, camera.newest), name="newest frame", daemon=True).start()
    try:
        camera.run()
    except UrbanReidError as error:
        camera.ended = Report("down", str(error)[:500])
        camera.tell(False, camera.seen.last_at or datetime.now(UTC), str(error)[:500])
    finally:
        camera.close()


class _Camera:
    def __init__(self, feed: Feed, settings: Settings, service: Connection, stop: threading.Event) -> None:
        self.feed, self.settings, self.stop, self.seen = feed, settings, stop, Seen()
        self.view = View(feed.camera, feed.region, feed.masks, feed.looks_per_s, feed.motion_gate, feed.context_frames)
        self.ended: Report | None = None
        self._service = service
        self._messages: deque[Change | Said] = deque(maxlen=1000)
        self._live: LiveCamera | None = None
        self._state: State = "starting"
        self._detail = self._doing = ""
        self._waits = ""  # why what was seen cannot be written now
        self._picture = Picture()
        self._looked: deque[tuple[float, int]] = deque()
        self._closed = threading.Event()
        self._reporter = threading.Thread(target=self._report_always, name="reporter", daemon=True)
        self._reporter.start()

    def run(self) -> None:
        detector = _Patient(open_detector(self.settings, self.feed.detector), self)
        with Store.open(self.settings, f"camera {self.feed.camera}") as store:
            if self.feed.kind == "stream":
                self._stream(store, CropStore(self.settings), detector)
            else:
                self._files(store, CropStore(self.settings), detector)

    def newest(self) -> Frame | None:
        """The part (h, w, 3) of a frame that was looked at last, while the camera is up."""
        return self.seen.picture if self._state == "up" else None

    def tell(self, up: bool, at: datetime, reason: str) -> None:
        if not up:
            self.seen.picture = None  # once it is up again, that is of before
        self._state, self._detail = ("up", self._doing) if up else ("down", reason)
        self._messages.append(Change(up, at, reason))

    def say(self, line: str) -> None:
        self._messages.append(Said(line))

    def close(self) -> None:
        self._closed.set()
        self._reporter.join(timeout=5)

    def _stream(self, store: Store, crops: CropStore, detector: Detector) -> None:
        address = partial(address_with_secret, self.feed, self.settings)
        name = shown_address(self.feed.address)
        by = decoding(self.settings.hardware_decoding)
        if by.note:
            self.say(by.note)
        frames = LiveCamera(
            address,
            name,
            looks_per_s=self.feed.looks_per_s,
            stop=self.stop,
            tell=self.tell,
            decoding=by,
            say=self.say,
        )
        self._live = frames
        source = source_of(frames, self.view, detector)
        ingest_frames(
            *(store, crops, frames, source, self.view, detector),
            progress=self._go_on,
            seen=self.seen,
            wait_out=self._wait_out,
        )

    def _files(self, store: Store, crops: CropStore, detector: Detector) -> None:
        watch, finished = Watch(Path(self.feed.address)), done(store, self.feed.camera)
        while not self.stop.is_set():
            there = watch.finished()
            finished = {each.key: finished[each.key] for each in there if each.key in finished}
            left = [each for each in there if each.key not in finished]
            refused = [why for why in finished.values() if why is not None]
            done_so_far = f"{len(finished)} of {len(there)} files are done"
            self._state, self._detail = "up", done_so_far + (f", {len(refused)} of them refused" if refused else "")
            if self.feed.kind == "file" and there and not left:
                self.ended = Report("refused", refused[0][:500]) if refused else Report("ended", "is taken in")
                return
            for recording in left:
                self._detail = self._doing = f"{done_so_far}; takes in {recording.path}"
                outcome = self._take(store, crops, recording, detector)
                if outcome is None:
                    return
                self.say(outcome.line)
                finished[recording.key] = outcome.refused
                for key in outcome.again:
                    finished.pop(key, None)
            self.stop.wait(LOOK_AGAIN_S)

    def _take(self, store: Store, crops: CropStore, recording: Recording, detector: Detector) -> Outcome | None:
        """How a file was taken in; None if it was interrupted."""

        def check(_read: int, _total: int) -> None:
            self._go_on()
            if self.stop.is_set():
                raise _Stopped

        try:
            return take(
                *(store, crops, self.feed, recording, self.view, detector),
                seen=self.seen,
                progress=check,
                wait_out=self._wait_out,
            )
        except _Stopped:
            self._uncount(store, recording)
            return None
        except UrbanReidError as error:  # such as of a database or a disk that is away
            self._state, self._detail = "down", str(error)[:500]
            self._uncount(store, recording)
            raise

    def _uncount(self, store: Store, recording: Recording) -> None:
        """Notes that reading a file ended by no fault of its own. Waits for the database, which would count it else."""
        while True:
            last = self.stop.is_set()
            try:
                with store.begin() as connection:
                    interrupted(connection, self.feed, recording)
                return
            except StoreError:
                if last:
                    return
                self.stop.wait(TRY_AGAIN_S)

    def _wait_out(self, error: UrbanReidError) -> bool:
        """Waits until what could not be written may be written again; False where the worker is asked to end.

        Nothing is looked at meanwhile, so that no more than a part waits: the camera is blind, and is said to be.
        """
        self._waits = str(error)[:500]
        self.tell(False, self.seen.last_at or datetime.now(UTC), self._waits)
        return not self.stop.wait(TRY_AGAIN_S)

    def _go_on(self, _read: int = 0, _total: int = 0) -> None:
        """A frame is asked for: what waited was written."""
        if self._waits and (self._live is None or self._live.is_up):
            self._waits = ""
            self.tell(True, datetime.now(UTC), "")

    def _report_always(self) -> None:
        last = False
        while not last:
            last = self._closed.wait(REPORT_EVERY_S)
            try:
                while self._messages:
                    self._service.send(self._messages.popleft())
                self._service.send(self._report())
            except (OSError, ValueError):  # the service is gone
                self.stop.set()
                return

    def _report(self) -> Report:
        if self.ended is not None:
            return replace(self.ended, last_frame_at=self.seen.last_at)
        live, seen, now = self._live, self.seen, time.monotonic()
        self._looked.append((now, seen.looks + seen.gated))
        while now - self._looked[0][0] > COUNTED_OVER_S:
            self._looked.popleft()
        (_, before), passed_s = self._looked[0], now - self._looked[0][0]
        frozen, black = self._picture.look(seen.picture, now) if self._state == "up" else (False, False)
        return Report(
            self._state,
            self._detail,
            last_frame_at=seen.last_at,
            looks_per_s=(seen.looks + seen.gated - before) / passed_s if passed_s else None,
            people=seen.people,
            lag_s=seen.lag_s,
            reconnects=max(live.connections - 1, 0) if live else 0,
            clock_offset_s=live.clock_offset_s if live else None,
            frozen=frozen and live is not None,
            black=black,
            looks=seen.looks,
            gated=seen.gated,
            missed=live.passed_over if live else 0,
        )


class _Stopped(Exception):
    """The process is asked to end in the middle of a file."""


class _Patient:
    """A detector that waits for the core process while that is busy or is started again."""

    def __init__(self, detector: Detector, camera: _Camera) -> None:
        self._detector, self._camera = detector, camera

    @property
    def sure(self) -> float:
        return self._detector.sure

    @property
    def name(self) -> str:
        return self._detector.name

    def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
        since, said = time.monotonic(), False
        while True:
            try:
                return self._detector.detect(frames)
            except CoreUnavailable as error:
                if not said and time.monotonic() - since > SAY_AFTER_S:
                    said = True
                    self._camera.say(str(error))
                if self._camera.stop.wait(0.5):
                    return [np.empty((0, 5))] * len(frames)


class Picture:
    """Whether the picture is frozen or black."""

    def __init__(self) -> None:
        self._small: NDArray[np.uint8] | None = None
        self._changed_s = 0.0

    def look(self, picture: Frame | None, now: float) -> tuple[bool, bool]:
        if picture is None:
            return False, False
        small = np.asarray(cv2.cvtColor(cv2.resize(picture, (160, 120)), cv2.COLOR_BGR2GRAY), np.uint8)
        if self._small is None or not np.array_equal(small, self._small):
            self._small, self._changed_s = small, now
        black = bool(small.mean() <= BLACK_MEAN + 4 and small.std() <= BLACK_STD)
        return now - self._changed_s >= FROZEN_AFTER_S, black
