import fcntl
import json
import os
import signal
from pathlib import Path

import pytest

from flows.server import PrefectServer, environment
from schemas.errors import FlowError, HomeError
from schemas.settings import Settings


def process_of(home: Path) -> int:
    return int(json.loads((home / "prefect" / "server.json").read_text())["pid"])


def wait_for_end(home: Path) -> None:
    with (home / "prefect" / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_one_server_for_all_that_ends_when_nobody_holds_it(home: Path) -> None:
    settings = Settings(home=home)
    with PrefectServer(settings) as first:
        assert first.url.startswith("http://127.0.0.1:")
        with PrefectServer(settings) as second:  # found while it is still starting
            assert second.url == first.url
            second.stop()
        assert first.wait() == first.url and first.alive()  # someone else's stop did not end it
        os.kill(process_of(home), signal.SIGKILL)
        wait_for_end(home)
        assert not first.alive()
        with PrefectServer(settings) as third:
            assert third.url != first.url
            assert third.wait() == third.url
    wait_for_end(home)  # by itself, once the events of the last run are written


def test_a_home_that_cannot_be_used_is_one_line(home: Path) -> None:
    (home / "prefect").write_text("a file")
    with pytest.raises(HomeError, match="Prefect's folder: File exists"), PrefectServer(Settings(home=home)):
        pass


def test_an_own_server_that_does_not_answer(home: Path) -> None:
    settings = Settings(home=home, prefect_url="http://127.0.0.1:9/api")
    with PrefectServer(settings) as server, pytest.raises(FlowError, match="URBAN_REID_PREFECT_URL"):
        server.wait()
    assert list(home.iterdir()) == []


def test_children_neither_report_home_nor_look_into_the_working_directory(home: Path) -> None:
    variables = environment(Settings(home=home), "http://127.0.0.1:1/api")
    assert variables["DO_NOT_TRACK"] == "1"
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["PREFECT_HOME"] == str(home / "prefect")
