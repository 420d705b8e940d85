"""The cameras' process of a host: a worker for each feed, health, outages, and features ahead of time.

Feeds that are added, changed, paused or removed take effect within seconds and touch no other. A worker that ends is
started again. Where hosts share a database, this process has the cameras that `hosts` lets it look at.
`python -P -m pipeline.cameras.service` writes its lines to HOME/cameras.log, where `up` leads them.
"""

import logging
import multiprocessing
import multiprocessing.context
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pipeline.cameras.hosts import CameraHost
from pipeline.cameras.outages import Change, Outages
from pipeline.cameras.overview import LATE, LATE_AFTER_S
from pipeline.cameras.rows import read_feeds, read_health, remove_health, went_down, write_health
from pipeline.cameras.running import SLOW_OVER_S, Running
from pipeline.cameras.worker import Report, Said
from pipeline.store import Store
from reid_core.detection import Frame
from reid_core.detection.files import default_detector
from schemas.disk import keep_private
from schemas.errors import HomeError, InputError, StoreError, UrbanReidError
from schemas.feeds import Feed, Health
from schemas.logs import begin_logging
from schemas.settings import Settings, settings

LOOK_EVERY_S = 0.5
#: Feeds are read and health is written this often.
ROWS_EVERY_S = 2.0
#: Pauses before a worker that ended is started again, the last one for ever.
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
#: A worker that lived so long is started again after the first pause.
LIVED_S = 60.0
#: A worker that was asked to end is killed after so long.
END_WITHIN_S = 8.0
#: From this share of frames left out, over the last minute, the machine is too slow. It is said again after an hour.
TOO_SLOW, SAID_AGAIN_S = 0.1, 3600.0

#: States of a file that nothing more is to be done with.
FOR_GOOD = frozenset({"ended", "refused"})


_log = logging.getLogger("urban_reid.cameras")


class Service:
    """All feeds of a home, or those that `host` may look at. `step` is called again and again, and `close` at the end.

    look_s: how long a look takes on this host. spent_s: what embedding took of the core for each camera. Seconds.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.monotonic,
        host: CameraHost | None = None,
        look_s: float = 1.0,
        spent_s: Mapping[str, float] | None = None,
    ) -> None:
        self._store, self._clock = store, clock
        self._host, self._look_s, self._spent_s = host, look_s, {} if spent_s is None else spent_s
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pipeline.cameras.worker"])
        self._running: dict[str, Running] = {}
        self._rows_at = self._said_slow_at = -float("inf")
        self._fault = ""
        self._default: str | None = None
        with store.begin() as connection:
            self._before = read_health(connection)
        self._changed: dict[str, Change] = {}  # of cameras that were ended, and are to be started again

    def step(self) -> None:
        """Looks after all feeds once. A database that does not answer is waited for."""
        if self._host is not None and self._host.must_ask:
            self._end_all_in_time(self._host)
        try:
            for running in self._running.values():
                self._look(running)
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
        """Ends all workers. Until another host has them, or the next `up`, the cameras are blind."""
        for running in self._running.values():
            running.ask_to_end()
        until = time.monotonic() + END_WITHIN_S
        for running in self._running.values():
            running.end(until)
        now = datetime.now(UTC)
        why = "`urban-reid up` was ended" if self._host is None else f"host {self._host.name} was ended"
        try:
            with self._store.begin() as connection:
                for camera, running in self._running.items():
                    if running.feed.kind == "stream" and not running.feed.paused:
                        went_down(connection, camera, now, why)
                        health = Health(camera=camera, state="down", at=now, detail=why)
                        last = running.report.last_frame_at
                        write_health(connection, health.model_copy(update={"last_frame_at": last}))
            if self._host is not None:
                self._host.leave(self._running)
        except StoreError as error:
            _log.warning("%s", error)

    @property
    def cameras(self) -> list[str]:
        """The cameras that this process has. For any thread."""
        return list(self._running)

    def keep_to_leases(self, ended: threading.Event) -> None:
        """Ends cameras before their leases do, also while `step` waits for a database that does not answer.

        For a thread of its own, until `ended` is set.
        """
        while self._host is not None and not ended.wait(LOOK_EVERY_S):
            if self._host.must_ask:
                for running in list(self._running.values()):
                    running.ask_to_end(kill=self._host.kill_in_s <= 0)

    def _end_all_in_time(self, host: CameraHost) -> None:
        """Ends all cameras before their leases do, and other hosts begin; they need not wait for a lock then."""
        if self._running:
            _log.warning("the leases of %d cameras could not be renewed: they are ended here", len(self._running))
        for running in self._running.values():
            running.ask_to_end()
        until = time.monotonic() + host.kill_in_s
        for running in self._running.values():
            running.end(until)
        self._running.clear()
        host.drop_locks()

    def _ours(self, host: CameraHost, feeds: dict[str, Feed]) -> dict[str, Feed]:
        """The feeds that this host may look at; ends those that it may not any more."""
        looks = {camera: one.load(self._look_s) for camera, one in self._running.items() if one.is_counted}
        allowed = host.renew(looks, self._running.keys())
        moved = [camera for camera in self._running if camera in feeds and camera not in allowed]
        for camera in self._end(moved):
            _log.info("%s: another host looks at it from now on", camera)
        host.give_back(moved)
        return {camera: feed for camera, feed in feeds.items() if camera in allowed}

    def _end(self, cameras: Sequence[str]) -> dict[str, datetime | None]:
        """Ends cameras, all within one time; when each had its last frame."""
        for camera in cameras:
            self._running[camera].ask_to_end()
        until = time.monotonic() + END_WITHIN_S
        for camera in cameras:
            self._running[camera].end(until)
        return {camera: self._running.pop(camera).report.last_frame_at for camera in cameras}

    def _follow_feeds(self) -> None:
        with self._store.begin() as connection:
            feeds = {feed.camera: feed for feed in read_feeds(connection)}
        if self._host is not None:
            feeds = self._ours(self._host, feeds)
        with suppress(HomeError):  # a worker that needs it says so; the others go on
            self._default = default_detector(self._store.settings)
        wanted = {camera: (feed, feed.detector or self._default) for camera, feed in feeds.items()}
        running_now = {camera: (running.feed, running.detector) for camera, running in self._running.items()}
        self._changed = {camera: change for camera, change in self._changed.items() if camera in feeds}
        ended = [camera for camera, now in running_now.items() if wanted.get(camera) != now]
        for camera, last in self._end(ended).items():
            if camera in feeds and last is not None:
                self._changed[camera] = Change(False, last, "its feed was changed")
            _log.info("%s: %s", camera, "its feed was changed" if camera in feeds else "its feed was removed")
        if removed := [camera for camera in ended if camera not in feeds]:
            with self._store.begin() as connection:
                for camera in removed:  # it may have been written after the feed was removed
                    remove_health(connection, camera)
            if self._host is not None:
                self._host.give_back(removed)
        begun = [camera for camera in feeds if camera not in self._running]
        if begun and self._host is not None:
            with self._store.begin() as connection:  # another host may have had them until now
                self._before = read_health(connection)
        for camera in begun:
            if self._host is not None and self._host.age_s > 2 * ROWS_EVERY_S:
                break  # leases are renewed first; what is left is started at the next step
            self._add(feeds[camera], feeds[camera].detector or self._default)

    def _add(self, feed: Feed, detector: str | None) -> None:
        """Starts a camera. Raises StoreError, after which it is not there and is started at the next step."""
        running, changed = Running(feed, detector, Outages(feed.camera)), self._changed.get(feed.camera)
        before = self._before.get(feed.camera) if changed is None else None
        why = "`urban-reid up` did not run" if self._host is None else "it had no host"
        if feed.paused:
            running.report = Report("paused")
            _log.info("%s: is paused", feed.camera)
            if feed.kind == "stream":
                with self._store.begin() as connection:
                    went_down(connection, feed.camera, datetime.now(UTC), "it was paused")
        else:
            if feed.kind == "stream":
                running.outages.down = changed
                if before is not None and before.last_frame_at is not None:  # an `up` that was killed could not say so
                    running.outages.down = Change(False, before.last_frame_at, why)
            running.start(self._context, self._store.settings)
        self._running[feed.camera] = running
        self._before.pop(feed.camera, None)
        self._changed.pop(feed.camera, None)

    def _look(self, running: Running) -> None:
        running.read()
        while running.inbox:
            self._take(running, running.inbox[0])
            running.inbox.popleft()  # not before: what the database refused is taken again
        while running.counted and self._clock() - running.counted[0].at_s > SLOW_OVER_S:
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
            running.count(self._clock(), self._spent_s.get(running.feed.camera, 0.0))
            running.said = "" if message.state in {"up", *FOR_GOOD} else running.said
        elif isinstance(message, Said):
            _log.info("%s: %s", running.feed.camera, message.line)
        elif running.feed.kind == "stream":
            running.outages.take(message, self._store)
        elif not message.up and message.reason != running.said:
            running.said = message.reason
            _log.warning("%s: %s; tries again", running.feed.camera, message.reason)

    def _write_health(self) -> None:
        now = datetime.now(UTC)
        with self._store.begin() as connection:
            for camera, running in self._running.items():
                report = running.report
                late = report.state == "starting" and time.monotonic() - running.started_at > LATE_AFTER_S
                write_health(
                    connection,
                    Health(
                        camera=camera,
                        state=report.state,
                        at=now,
                        detail=LATE if late else report.detail,
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
    from pipeline.cameras.capacity import measure_capacity
    from pipeline.cameras.features import embed_always
    from pipeline.cameras.live_server import serving

    with Store.open(of, "urban-reid cameras") as store:
        spent_s: dict[str, float] = {}
        host, look_s = None, 1.0
        if of.database_url is not None:  # others may share it
            capacity = measure_capacity(of)
            host, look_s = CameraHost(store, capacity.looks_per_s), capacity.look_s
            _log.info("host %s: cameras may ask for %.1f looks a second", host.name, capacity.looks_per_s)
        service = Service(store, host=host, look_s=look_s, spent_s=spent_s)
        leases = threading.Thread(target=service.keep_to_leases, args=(ended,), name="leases", daemon=True)
        leases.start()
        embedded = (store, ended, None if host is None else lambda: service.cameras, spent_s)
        embedding = threading.Thread(target=embed_always, args=embedded, name="features", daemon=True)
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
