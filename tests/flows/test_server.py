import os
import signal
import time
from pathlib import Path

import pytest

from flows.server import PrefectServer
from schemas.disk import full_disk
from schemas.errors import FlowError, HomeError, UsageError
from schemas.settings import Settings
from tests.helpers.prefect_api import process_of, wait_for_end


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
            assert third.wait() == first.url  # on the same port
    wait_for_end(home)  # by itself, once the events of the last run are written


def test_a_server_that_hangs_is_not_waited_for_as_one_that_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PrefectServer(Settings(home=home)) as server:
        assert server._patience_s() > 60
        server.wait()
        while server._patience_s() > 60:  # it says so within half a second
            time.sleep(0.1)
        monkeypatch.setattr("flows.server._ANSWER_DEADLINE_S", 2.0)
        os.kill(process_of(home), signal.SIGSTOP)
        try:
            with pytest.raises(FlowError, match=r"does not answer \(timed out\); its log is"):
                server.wait()
        finally:
            os.kill(process_of(home), signal.SIGCONT)
        server.stop()


def test_a_home_that_cannot_be_used_is_one_line(home: Path) -> None:
    (home / "prefect").write_text("a file")
    with pytest.raises(HomeError, match="Prefect's folder: File exists"), PrefectServer(Settings(home=home)):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "x",
        "ftp://h/api",
        "http://",
        "http://[::1/api",
        "http://h:x/api",
        "http://h:99999999/",
        "http://h h/",
    ],
)
def test_an_address_that_is_none_is_one_line(home: Path, url: str) -> None:
    with pytest.raises(UsageError, match=r"^URBAN_REID_PREFECT_URL: .* is not an API address such as http"):
        PrefectServer(Settings(home=home, prefect_url=url)).__enter__()


def test_a_user_supplied_server_that_does_not_answer(home: Path) -> None:
    settings = Settings(home=home, prefect_url="http://127.0.0.1:9/api")
    with PrefectServer(settings) as server, pytest.raises(FlowError, match="URBAN_REID_PREFECT_URL"):
        server.wait()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff garbage", b'{"url": 1, "pid": null}', None])
def test_a_damaged_record_is_written_again(home: Path, content: bytes | None) -> None:
    settings, record = Settings(home=home), home / "prefect" / "server.json"
    record.parent.mkdir(mode=0o700)
    if content is not None:
        record.write_bytes(content)  # before any server was started
    with PrefectServer(settings) as first:
        process_of(home)
        record.unlink() if content is None else record.write_bytes(content)  # while the server runs
        with PrefectServer(settings) as second:
            assert second.url == first.url
        first.stop()
    assert not second.alive()


def test_a_full_disk_is_named(small_disk: Path) -> None:
    if not os.path.ismount(small_disk):
        pytest.skip("no file system can be mounted here")
    assert full_disk(small_disk.parent) is None
    settings = Settings(home=small_disk / "home")
    with (
        pytest.raises(FlowError, match=r"because the disk of .*disk/home/prefect is full"),
        PrefectServer(settings) as s,
    ):
        s.wait()
