"""A Prefect server for the session, found and started as the program does it."""

import gc
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.environment import connected
from flows.server import PrefectServer
from schemas.settings import Settings
from tests.helpers.homes import new_home
from tests.helpers.prefect_api import Ask, ask, secret_of


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[tuple[Path, str]]:
    home = new_home()
    settings = Settings(home=home)
    with PrefectServer(settings) as server:
        with connected(settings, server.url):
            yield home, server.wait()
        server.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def prefect_url(prefect_server: tuple[Path, str]) -> str:
    """The API of a real server, which flows called in this process report to."""
    return prefect_server[1]


@pytest.fixture(scope="session")
def prefect_home(prefect_server: tuple[Path, str]) -> Path:
    """The data directory of that server."""
    return prefect_server[0]


@pytest.fixture(autouse=True)
def prefects_sockets() -> Iterator[None]:
    """Collects the sockets that Prefect's clients leave open, whose warnings would fail the next test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture
def api(prefect_url: str, prefect_home: Path) -> Ask:
    return lambda path, body: ask(prefect_url, path, body, secret_of(prefect_home))
