"""Errors that no input causes, raised by commands that the tests add."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import HomeError, InputError, StoreError
from schemas.settings import settings as read_settings
from urban_reid import cli
from urban_reid.errors import refused_path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("URBAN_REID_HOME", str(tmp_path))
    read_settings.cache_clear()
    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))

    @cli.app.command("fail-unexpectedly")
    def _unexpected() -> None:
        raise ZeroDivisionError("a\nb \x1b[31m")

    @cli.app.command("fail-knowingly")
    def _known() -> None:
        raise StoreError("the table [red]x[/red]\nis gone")

    yield tmp_path
    read_settings.cache_clear()


def test_unexpected(failing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fail-unexpectedly"])
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        f"error: unexpected ZeroDivisionError: a b [31m; its traceback is in {failing / 'errors.log'}\n"
    )
    assert "ZeroDivisionError" in (failing / "errors.log").read_text()


def test_known(failing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fail-knowingly"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: the table [red]x[/red] is gone\n"
    assert not (failing / "errors.log").exists()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.EACCES, "denied", "in/file"), InputError, "in/file: denied"),
        (OSError(errno.EACCES, "denied", "/data/set/x/1.jpg"), InputError, "/data/set/x/1.jpg: denied"),
        (OSError(errno.ENOENT, "none", "/data"), InputError, "/data: none"),
        (OSError(errno.ENOSPC, "full", "/home/crops/d1"), HomeError, "/home/crops/d1: full; the data directory is"),
        (OSError(errno.ENOENT, "none", "/home/crops/d1"), None, ""),
        (OSError(errno.EACCES, "denied", "/etc/passwd"), None, ""),
        (OSError(errno.EACCES, "denied"), None, ""),
    ],
)
def test_a_path_that_the_system_refuses(
    monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[Exception] | None, message: str
) -> None:
    monkeypatch.setenv("URBAN_REID_HOME", "/home")
    read_settings.cache_clear()
    found = refused_path(error, ["evaluate", "--model", "in", "--dataset", "market1501:/data/set"])
    read_settings.cache_clear()
    assert (None if found is None else type(found)) is kind and str(found or "").startswith(message)
