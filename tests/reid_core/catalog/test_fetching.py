"""Downloads from a real server on loopback."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reid_core.catalog import fetching
from reid_core.catalog.entries import CatalogFile
from reid_core.catalog.fetching import fetch
from schemas.errors import InputError, ModelFileError
from tests.helpers.file_server import FileServer, file_server

CONTENT = bytes(range(256)) * 1024  # 256 kB: several pieces
PATH = "/models/net.onnx"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with file_server() as found:
        found.files[PATH] = CONTENT
        yield found


def entry(content: bytes = CONTENT, *, size: bool = True) -> CatalogFile:
    return CatalogFile(
        name="net.onnx",
        address="https://models.example/net.onnx",
        bytes=len(content) if size else None,
        sha384=hashlib.sha384(content).hexdigest(),
    )


def get(server: FileServer, folder: Path, file: CatalogFile, path: str = PATH) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    fetch(file, server.address + path, folder / "net.onnx", lambda done, total: told.append((done, total)))
    return told


def test_a_file_comes_whole_and_progress_is_told(server: FileServer, tmp_path: Path) -> None:
    told = get(server, tmp_path, entry())
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and len(told) > 2 and told == sorted(told)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_connection_that_is_cut_goes_on_where_it_ended(server: FileServer, tmp_path: Path) -> None:
    server.cuts[PATH] = 2
    get(server, tmp_path, entry())
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked == [(PATH, None), (PATH, f"bytes={half}-"), (PATH, f"bytes={half + half // 2}-")]


def test_the_next_call_goes_on_where_the_last_one_gave_up(server: FileServer, tmp_path: Path) -> None:
    server.cuts[PATH] = fetching.TRIES
    with pytest.raises(InputError, match="the same command goes on where it ended"):
        get(server, tmp_path, entry())
    assert not (tmp_path / "net.onnx").exists()
    here = (tmp_path / "net.onnx.part").stat().st_size
    assert 0 < here < len(CONTENT)
    server.asked.clear()
    get(server, tmp_path, entry())
    assert server.asked == [(PATH, f"bytes={here}-")] and (tmp_path / "net.onnx").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_file_again(server: FileServer, tmp_path: Path) -> None:
    server.no_ranges.add(PATH)
    (tmp_path / "net.onnx.part").write_bytes(CONTENT[:1000])
    get(server, tmp_path, entry())
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


def test_a_part_of_another_file_is_begun_anew(server: FileServer, tmp_path: Path) -> None:
    """Without a size in the catalog, a part may be longer than the file is by now."""
    (tmp_path / "net.onnx.part").write_bytes(b"x" * (len(CONTENT) + 10))
    get(server, tmp_path, entry(size=False))
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("resumed", [False, True])
def test_a_forged_file_is_refused_and_nothing_of_it_is_kept(server: FileServer, tmp_path: Path, resumed: bool) -> None:
    forged = bytearray(CONTENT)
    forged[-1] ^= 1
    server.files[PATH] = bytes(forged)
    if resumed:
        (tmp_path / "net.onnx.part").write_bytes(CONTENT[:1000])
    with pytest.raises(ModelFileError, match=r"is not the published net.onnx: .* nothing of it is kept"):
        get(server, tmp_path, entry())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("told", [True, False])
def test_a_larger_file_is_refused_before_it_is_here(server: FileServer, tmp_path: Path, told: bool) -> None:
    server.files[PATH] = CONTENT * 100
    if not told:  # neither a length nor an end is promised
        server.no_ranges.add(PATH)
    with pytest.raises(ModelFileError, match="bytes or more, and 262144 are right; nothing of it is kept"):
        get(server, tmp_path, entry())
    assert not list(tmp_path.iterdir())


def test_a_smaller_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.files[PATH] = CONTENT[:-1]
    with pytest.raises(ModelFileError, match="is not the published"):
        get(server, tmp_path, entry())
    assert not list(tmp_path.iterdir())


def test_redirects_are_followed_within_http(server: FileServer, tmp_path: Path) -> None:
    server.redirects["/latest"] = PATH
    get(server, tmp_path, entry(), "/latest")
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    server.redirects["/round"] = "/round"
    with pytest.raises(InputError, match=r"/round: .*redirect"):
        get(server, tmp_path, entry(), "/round")
    (tmp_path / "secret").write_bytes(CONTENT)
    server.redirects["/file"] = (tmp_path / "secret").as_uri()
    with pytest.raises(InputError, match="/file: "):
        get(server, tmp_path, entry(), "/file")


def test_a_missing_file_and_a_busy_server(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be had: the server answers 404"):
        get(server, tmp_path, entry(), "/nowhere")
    server.refused[PATH] = [503, 429]
    get(server, tmp_path, entry())
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a", "file:///etc/passwd", "/etc/passwd", "http://me:pw@a/b"])
def test_other_addresses_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="is no http:// or https:// address without a user name"):
        fetch(entry(), address, tmp_path / "net.onnx", lambda done, total: None)


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)
    with pytest.raises(InputError, match="the same command goes on where it ended"):
        fetch(entry(), "http://127.0.0.1:9/a", tmp_path / "net.onnx", lambda done, total: None)


def test_the_usual_variables_name_a_proxy(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is asked for the whole address, of a host that does not exist."""
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.setenv("NO_PROXY", "")
    server.files["http://models.example/net.onnx"] = CONTENT
    fetch(entry(), "http://models.example/net.onnx", tmp_path / "net.onnx", lambda done, total: None)
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a small file system")
def test_a_full_disk_is_told(server: FileServer, small_disk: Path) -> None:
    from schemas.errors import HomeError

    with pytest.raises(HomeError, match="cannot be written"):
        get(server, small_disk, entry())
