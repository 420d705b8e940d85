"""A small city, real pedestrians in a short video, and the service, stepped until something is so."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.cameras import service
from pipeline.cameras.rows import read_health, write_feed
from pipeline.city.units import store_city
from pipeline.store import Store
from schemas.city_file import City
from schemas.feeds import Feed, Health
from tests.helpers.assets import asset
from tests.helpers.pictures import UNITS
from tests.helpers.video_files import write_plaza

PATIENCE_S = 120.0


@pytest.fixture
def city_store(store: Store) -> Store:
    store_city(store, City.model_validate({"units": UNITS}))
    return store


@pytest.fixture(scope="session")
def plaza(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plaza(tmp_path_factory.mktemp("plaza") / "plaza.avi")


@pytest.fixture(scope="session")
def detector() -> str:
    return str(asset("models/person-detection-retail-0013/person-detection-retail-0013.xml"))


class Stepped:
    """The service of a store, stepped in this process; its workers are processes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.service = service.Service(store)

    def until(self, done: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
        """Steps until `done` gives something true, and returns that."""
        deadline = time.monotonic() + within_s
        while not (found := done()):
            assert time.monotonic() < deadline, f"waited in vain; {self.health()}"
            self.service.step()
            time.sleep(0.1)
        return found

    def step_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def feed(self, **values: Any) -> None:
        with self.store.begin() as connection:
            write_feed(connection, Feed.model_validate(values))

    def health(self) -> dict[str, Health]:
        with self.store.begin() as connection:
            return read_health(connection)

    def state(self, camera: str) -> str | None:
        health = self.health().get(camera)
        return health.state if health is not None else None

    def rows(self, query: str) -> list[Any]:
        with self.store.begin() as connection:
            return list(connection.execute(text(query)).all())

    def process(self, camera: str) -> int:
        process = self.service._running[camera].process
        assert process is not None and process.pid is not None
        return process.pid


@contextmanager
def stepped(store: Store) -> Iterator[Stepped]:
    running = Stepped(store)
    try:
        yield running
    finally:
        running.service.close()


@pytest.fixture
def cameras(city_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    with stepped(city_store) as running:
        yield running
