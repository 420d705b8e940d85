"""The command line as its users meet it: a process of its own."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.settings import Settings
from schemas.settings import settings as read_settings
from tests.helpers.command_line import Run, check_names, environment_of, program
from urban_reid.cli import main


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Iterator[Run]:
    """Runs one command to its end, in an empty folder, on the test's own database."""

    def call(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            program(*arguments),
            env=environment_of(settings) | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    yield call


@pytest.fixture
def run_here(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """As `run`, in this process: for the many that end before any work begins."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    read_settings.cache_clear()

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        if shown.out.startswith("{"):
            check_names(json.loads(shown.out))
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), shown.out, shown.err)

    yield call
    read_settings.cache_clear()


@pytest.fixture
def run_json(run: Run) -> Callable[..., dict[str, Any]]:
    """Runs a command that has to succeed, with --json; what it printed, which is one object and nothing else."""

    def call(*arguments: str) -> dict[str, Any]:
        done = run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.stdout.count("\n") == 1
        check_names(found)
        return found

    return call
