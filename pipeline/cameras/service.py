"""The cameras' process of `urban-reid up`: a worker for each feed, health, outages, and features ahead of time.

Feeds that are added, changed, paused or removed take effect within seconds and touch no other. A worker that ends is
started again. `python -P -m pipeline.cameras.service` writes its lines to HOME/cameras.log, where `up` leads them.
"""

import logging
import multiprocessing
import multiprocessing.context
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from pipeline.cameras.newest import Newest
from pipeline.cameras.outages import Change, Outages
from pipeline.cameras.rows import read_feeds, read_health, remove_health, went_down, write_health
from pipeline.cameras.worker import Report, Said, work
from pipeline.crops.context_frames import AT_A_TIME, remove_expired
from pipeline.store import Store
from pipeline.store.locks import lock_crops
from reid_core.detection import Frame
from reid_core.detection.files import default_detector
from schemas.disk import keep_private
from schemas.errors import HomeError, InputError, StoreError, UrbanReidError
from schemas.feeds import Feed, Health
from schemas.logs import begin_logging
from schemas.settings import Settings, settings

LOOK_EVERY_S = 0.5
#: Context frames that are too old are removed this often.
EXPIRE_EVERY_S = 3600.0
#: Feeds are read and health is written this often.
ROWS_EVERY_S = 2.0
#: Pauses before a worker that ended is started again, the last one for ever.
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
#: A worker that lived so long is started again after the first pause.
LIVED_S = 60.0
#: A worker that was asked to end is killed after so long.
END_WITHIN_S = 8.0
#: From this share of frames left out, over the last minute, the machine is too slow. It is said again after an hour.
TOO_SLOW, SLOW_OVER_S, SAID_AGAIN_S = 0.1, 60.0, 3600.0

STARTING = Report("starting")
#: States of a file that nothing more is to be done with.
FOR_GOOD = frozenset({"ended", "refused"})


_log = logging.getLogger("urban_reid.cameras")


@dataclass
class Running:
    """A feed with the detector that it uses, its worker and what that said last."""

    feed: Feed
    detector: str | None
    outages: Outages
    process: BaseProcess | None = None
    pipe: Connection | None = None
    newest: Newest | None = None
    report: Report = STARTING
    started_at: float = 0.0
    ends: int = 0
    inbox: deque[Change | Report | Said] = field(default_factory=deque)
    said: str = ""  # why it is down, as the log has it
    counted: deque[tuple[float, int, int]] = field(default_factory=deque)  # when, looks, missed

    def start(self, context: multiprocessing.context.ForkServerContext, of: Settings) -> None:
        self.pipe, theirs = context.Pipe()
        ours, asking = context.Pipe()
        self.newest = Newest(ours)
        name = f"camera {self.feed.camera}"
        self.process = context.Process(target=work, args=(self.feed, of, theirs, asking), name=name)
        self.process.start()
        theirs.close()
        asking.close()
        self.started_at, self.report = time.monotonic(), STARTING
        self.counted.clear()

    def ask_to_end(self) -> None:
        if self.process is not None and self.process.is_alive():
            self.process.terminate()

    def end(self, until: float) -> None:
        """Waits for the worker to end, and kills it at `until`, by the monotonic clock."""
        if self.process is None:
            return
        self.process.join(max(until - time.monotonic(), 0))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        self.process = None

    def count(self, now_s: float) -> None:
        """Counts the looks of the last report; a feed that is not up makes none, and starts again at 0."""
        if self.report.state == "up":
            self.counted.append((now_s, self.report.looks, self.report.missed))
        else:
            self.counted.clear()

    def looks_and_missed(self) -> tuple[int, int]:
        """Looks that were made and left out while they were counted; none while that is too short to tell."""
        if not self.counted or self.counted[-1][0] - self.counted[0][0] <= SLOW_OVER_S / 2:
            return 0, 0
        (_, *first), (_, *last) = self.counted[0], self.counted[-1]
        return last[0] - first[0], last[1] - first[1]

    def read(self) -> None:
        try:
            while self.pipe is not None and self.pipe.poll():
                self.inbox.append(self.pipe.recv())
        except (EOFError, OSError):
            self.pipe = None


class Service:
    """All feeds of a home. `step` is called again and again, and `close` at the end."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pipeline.cameras.worker"])
        self._running: dict[str, Running] = {}
        self._rows_at = self._expired_at = self._said_slow_at = -float("inf")
        self._fault = ""
        self._default: str | None = None
        with store.begin() as connection:
            self._before = read_health(connection)

    def step(self) -> None:
        """Looks after all feeds once. A database that does not answer is waited for."""
        try:
            for running in self._running.values():
                self._look(running)
            if self._clock() - self._expired_at >= EXPIRE_EVERY_S:
                self._expire()
            if self._clock() - self._rows_at >= ROWS_EVERY_S:
                self._rows_at = self._clock()
                self._follow_feeds()
                self._write_health()
                self._say_if_too_slow()
        except UrbanReidError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _log.warning("%s", error)
        else:
            self._fault = ""

    def newest(self, camera: str) -> Frame:
        """What a camera saw last, (360, w, 3) BGR. For any thread. Raises InputError, CoreUnavailable."""
        running = self._running.get(camera)
        if running is None or running.newest is None:
            raise InputError(f"{camera}: nothing looks at this camera now")
        frame = running.newest.ask()
        if frame is None:
            raise InputError(f"{camera}: there is no picture of now; the list of cameras says how it fares")
        return frame

    def close(self) -> None:
        """Ends all workers. Until the next `up` the cameras are blind."""
        for running in self._running.values():
            running.ask_to_end()
        until = time.monotonic() + END_WITHIN_S
        for running in self._running.values():
            running.end(until)
        now = datetime.now(UTC)
        try:
            with self._store.begin() as connection:
                for camera, running in self._running.items():
                    if running.feed.kind == "stream" and not running.feed.paused:
                        went_down(connection, camera, now, "`urban-reid up` was ended")
                        health = Health(camera=camera, state="down", at=now, detail="`urban-reid up` was ended")
                        last = running.report.last_frame_at
                        write_health(connection, health.model_copy(update={"last_frame_at": last}))
        except StoreError as error:
            _log.warning("%s", error)

    def _follow_feeds(self) -> None:
        with self._store.begin() as connection:
            feeds = {feed.camera: feed for feed in read_feeds(connection)}
        with suppress(HomeError):  # a worker that needs it says so; the others go on
            self._default = default_detector(self._store.settings)
        wanted = {camera: (feed, feed.detector or self._default) for camera, feed in feeds.items()}
        running_now = {camera: (running.feed, running.detector) for camera, running in self._running.items()}
        changed: dict[str, Change] = {}
        for camera in [camera for camera, now in running_now.items() if wanted.get(camera) != now]:
            running = self._running.pop(camera)
            if camera in feeds and running.report.last_frame_at is not None:
                changed[camera] = Change(False, running.report.last_frame_at, "its feed was changed")
            running.ask_to_end()
            running.end(time.monotonic() + END_WITHIN_S)
            if camera not in feeds:  # it may have been written after the feed was removed
                with self._store.begin() as connection:
                    remove_health(connection, camera)
            _log.info("%s: %s", camera, "its feed was changed" if camera in feeds else "its feed was removed")
        for camera, feed in feeds.items():
            if camera not in self._running:
                self._add(feed, feed.detector or self._default, changed.get(camera))

    def _add(self, feed: Feed, detector: str | None, changed: Change | None) -> None:
        running = self._running[feed.camera] = Running(feed, detector, Outages(feed.camera))
        now = datetime.now(UTC)
        before = self._before.pop(feed.camera, None)
        if feed.paused:
            running.report = Report("paused")
            _log.info("%s: is paused", feed.camera)
            if feed.kind == "stream":
                with self._store.begin() as connection:
                    went_down(connection, feed.camera, now, "it was paused")
            return
        if feed.kind == "stream":
            running.outages.down = changed
            if before is not None and before.last_frame_at is not None:  # an `up` that was killed could not say so
                running.outages.down = Change(False, before.last_frame_at, "`urban-reid up` did not run")
        running.start(self._context, self._store.settings)

    def _look(self, running: Running) -> None:
        running.read()
        while running.inbox:
            self._take(running, running.inbox[0])
            running.inbox.popleft()  # not before: what the database refused is taken again
        while running.counted and self._clock() - running.counted[0][0] > SLOW_OVER_S:
            running.counted.popleft()
        running.outages.look(self._store)
        process = running.process
        if process is None or process.is_alive() or running.report.state in FOR_GOOD:
            return
        running.read()
        if running.inbox:
            return  # what it said last counts first
        lived_s = time.monotonic() - running.started_at
        if running.report.state != "down":  # it did not say why
            reason = f"its process ended with status {process.exitcode}"
            at = running.report.last_frame_at or datetime.now(UTC)
            running.report = Report("down", reason, last_frame_at=running.report.last_frame_at)
            if running.feed.kind == "stream":
                running.outages.take(Change(False, at, reason), self._store)
            else:
                _log.warning("%s: %s; tries again", running.feed.camera, reason)
        if lived_s < PAUSES_S[min(running.ends, len(PAUSES_S) - 1)]:
            return
        running.ends = 0 if lived_s > LIVED_S else running.ends + 1
        running.end(time.monotonic())
        running.start(self._context, self._store.settings)

    def _take(self, running: Running, message: Change | Report | Said) -> None:
        if isinstance(message, Report):
            running.report = message
            running.count(self._clock())
            running.said = "" if message.state in {"up", *FOR_GOOD} else running.said
        elif isinstance(message, Said):
            _log.info("%s: %s", running.feed.camera, message.line)
        elif running.feed.kind == "stream":
            running.outages.take(message, self._store)
        elif not message.up and message.reason != running.said:
            running.said = message.reason
            _log.warning("%s: %s; tries again", running.feed.camera, message.reason)

    def _expire(self) -> None:
        """Removes context frames that were kept long enough, some at each step until none is left."""
        with self._store.begin() as connection:
            lock_crops(connection)
            removed = remove_expired(connection, self._store.settings)
        if removed < AT_A_TIME:
            self._expired_at = self._clock()
        if removed:
            _log.info("%d context frames older than %d days were removed", removed, self._store.settings.context_days)

    def _write_health(self) -> None:
        now = datetime.now(UTC)
        with self._store.begin() as connection:
            for camera, running in self._running.items():
                report = running.report
                write_health(
                    connection,
                    Health(
                        camera=camera,
                        state=report.state,
                        at=now,
                        detail=report.detail,
                        last_frame_at=report.last_frame_at,
                        looks_per_s=report.looks_per_s,
                        people=report.people,
                        lag_s=report.lag_s,
                        reconnects=report.reconnects,
                        clock_offset_s=report.clock_offset_s,
                        frozen=report.frozen,
                        black=report.black,
                    ),
                )

    def _say_if_too_slow(self) -> None:
        """One line when the machine cannot look as often as asked for, and no more of them for an hour."""
        looks = missed = 0
        for running in self._running.values():
            made, left_out = running.looks_and_missed()
            looks, missed = looks + made, missed + left_out
        if missed <= TOO_SLOW * (looks + missed) or self._clock() - self._said_slow_at < SAID_AGAIN_S:
            return
        self._said_slow_at = self._clock()
        _log.warning(
            "this machine is too slow for its cameras: over the last minute %.0f %% of the looks were left out, at "
            "all cameras alike; fewer looks a second, smaller regions, the motion gate or a faster detector need less",
            100 * missed / (looks + missed),
        )


def run(of: Settings, ended: threading.Event) -> None:
    """Runs all feeds of a home until `ended` is set. Raises StoreError, HomeError, CoreError."""
    # Here, as each worker imports this module too.
    from pipeline.cameras.features import embed_always
    from pipeline.cameras.live_server import serving

    with Store.open(of, "urban-reid cameras") as store:
        service = Service(store)
        embedding = threading.Thread(target=embed_always, args=(store, ended), name="features", daemon=True)
        embedding.start()
        try:
            with serving(store, service.newest):
                while not ended.wait(LOOK_EVERY_S):
                    service.step()
        finally:
            ended.set()
            service.close()
            embedding.join(timeout=END_WITHIN_S)


def main() -> None:
    keep_private()
    _log.setLevel(logging.INFO)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        begin_logging(settings().log, "cameras")
        run(settings(), ended)
    except UrbanReidError as error:
        _log.critical("%s", error)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
