"""A Prefect server for the session, found and started as the program does it."""

import gc
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from flows.server import PrefectServer, connected
from schemas.settings import Settings
from tests.conftest import new_home
from tests.pipeline.resolve.conftest import Town, by_time, city_files, lines, model_folder, town

__all__ = ["Town", "by_time", "city_files", "lines", "model_folder", "town"]

Ask = Callable[[str, dict[str, Any]], Any]


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    """POST to Prefect's API; its answer."""
    return httpx.post(f"{url}{path}", json=body, timeout=30, trust_env=False).raise_for_status().json()


@pytest.fixture(scope="session")
def prefect_url() -> Iterator[str]:
    """The API of a real server, which flows called in this process report to."""
    home = new_home()
    settings = Settings(home=home)
    with PrefectServer(settings) as server:
        with connected(settings, server):
            yield server.wait()
        server.stop()
    shutil.rmtree(home)


@pytest.fixture(autouse=True)
def prefects_sockets() -> Iterator[None]:
    """Prefect's clients leave sockets to the garbage collector; they are not to fail whatever test runs next."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture
def api(prefect_url: str) -> Ask:
    return lambda path, body: ask(prefect_url, path, body)
