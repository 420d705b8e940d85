"""The cameras' process when the database does not answer at the wrong moment, and when many cameras end at once."""

import multiprocessing
import multiprocessing.connection
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection

from pipeline.cameras.features import embed_always
from pipeline.cameras.outages import Outages
from pipeline.cameras.rows import read_health, read_outages, remove_feed, write_feed
from pipeline.cameras.running import Running
from pipeline.cameras.service import Service
from pipeline.store import Store
from schemas.errors import StoreUnavailable
from schemas.feeds import Feed

CAMERAS = ["d1/s1/b1/c1", "d1/s1/b2/c2"]


def feed(camera: str, *, paused: bool = False) -> Feed:
    return Feed(camera=camera, address="rtsp://10.0.0.5/stream", paused=paused)


def test_a_camera_that_could_not_be_started_is_at_the_next_step(
    city_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with city_store.begin() as connection:
        for camera in CAMERAS:
            write_feed(connection, feed(camera, paused=True))
    service = Service(city_store, clock=iter(range(0, 1000, 10)).__next__)
    faults = ["away"]

    def went_down(connection: Connection, camera: str, *_: object) -> bool:
        if camera == CAMERAS[1] and faults:
            raise StoreUnavailable(faults.pop())
        return True

    monkeypatch.setattr("pipeline.cameras.service.went_down", went_down)
    service.step()
    assert service.cameras == CAMERAS[:1]
    service.step()
    assert service.cameras == CAMERAS
    with city_store.begin() as connection:
        assert {health.state for health in read_health(connection).values()} == {"paused"}
        assert read_outages(connection, "d1") == []
    service.close()


def test_an_error_that_nobody_expected_does_not_end_the_embedding(
    city_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended, tries = threading.Event(), list[int]()

    def embed(*_: object) -> None:
        tries.append(1)
        if len(tries) > 2:
            ended.set()
        raise ValueError("a bug")

    monkeypatch.setattr("pipeline.cameras.features._embed", embed)
    monkeypatch.setattr("pipeline.cameras.features.EMBED_EVERY_S", 0.0)
    embed_always(city_store, ended, None, {})
    assert len(tries) == 3 and caplog.messages.count("features: unexpected ValueError: a bug") == 1


def deaf(said: "multiprocessing.connection.Connection[object, object]") -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    said.send("deaf")
    time.sleep(60)


@contextmanager
def deaf_workers(service: Service) -> Iterator[None]:
    """Workers that do not end when they are asked to."""
    context = multiprocessing.get_context("fork")
    for camera in CAMERAS:
        ours, theirs = context.Pipe()
        running = Running(feed(camera), service._default, Outages(camera))
        running.process = context.Process(target=deaf, args=(theirs,))
        running.process.start()
        assert ours.recv() == "deaf"
        service._running[camera] = running
    try:
        yield
    finally:
        for running in service._running.values():
            running.end(0)


def test_cameras_that_are_removed_together_end_within_the_time_of_one(
    city_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cameras.service.END_WITHIN_S", 2.0)
    with city_store.begin() as connection:
        for camera in CAMERAS:
            write_feed(connection, feed(camera))
    service = Service(city_store)
    with deaf_workers(service):
        with city_store.begin() as connection:
            for camera in CAMERAS:
                remove_feed(connection, camera)
        began = time.monotonic()
        service.step()
        assert service.cameras == [] and 2 <= time.monotonic() - began < 2 * 2
