"""Progress of long work, told in lines where there is no terminal."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.city.units import read_city_file, store_city
from pipeline.registry import register_model, use_model
from pipeline.store import Store
from tests.helpers.command_line import environment_of
from tests.helpers.town import PACKAGED
from urban_reid import progress
from urban_reid.progress import Estimate


def test_the_time_left_is_estimated_from_what_this_run_has_done() -> None:
    now = 0.0
    estimate = Estimate(lambda: now)
    assert estimate.line() == "at work: 0 s so far"
    estimate("reading", 0, 72)
    now = 20.0
    assert estimate.line() == "reading: 0 of 72, 20 s so far"
    estimate("reading", 24, 72)
    assert estimate.line() == "reading: 24 of 72, about 40 s left"
    estimate("training", 100, 400)  # goes on where an earlier run was interrupted
    assert estimate.line() == "training: 100 of 400, 20 s so far"
    now = 320.0
    estimate("training", 200, 400)
    assert estimate.line() == "training: 200 of 400, about 10 min left"
    estimate("frames", 5, 0)
    now = 10_000.0
    assert estimate.line() == "frames: 5, 2.8 h so far"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SHORTEST_PAUSE_S", 0.02)
    monkeypatch.setattr(progress, "_LONGEST_PAUSE_S", 0.02)


@pytest.mark.usefixtures("impatient")
def test_work_that_says_nothing_is_still_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.steps() as begin:
        begin("resolving [red]b1[/red]")
        shown = ""
        while "so far" not in shown:
            time.sleep(0.01)
            shown += capsys.readouterr().err
    assert shown.splitlines()[0] == "resolving [red]b1[/red]"
    assert shown.splitlines()[1] == "resolving [red]b1[/red]: 0 s so far"


IMPATIENT = """
import sys
from urban_reid import cli, progress
progress._SHORTEST_PAUSE_S = progress._LONGEST_PAUSE_S = 0.02
cli.main(sys.argv[1:])
"""


@pytest.mark.system
def test_long_commands_tell_their_progress_on_stderr(store: Store, lines: list[str], city_files: Path) -> None:
    store_city(store, read_city_file(city_files / "city.yaml"))
    register_model(store, store.settings, PACKAGED, "demo")
    use_model(store, "demo")
    part = city_files / "part-progress.jsonl"
    part.write_text("\n".join(lines[:60]) + "\n")
    report = store.settings.home / "report"
    tiny = ("--strategy", "plain", "--architecture", "resnet10s", "--epochs", "1", "--identities-per-batch", "4")
    try:
        for label, command in {
            "crops": ("ingest", "manifest", str(part)),
            "units resolved": ("resolve", "--unit", "d1"),
            "pictures of the report": ("report", "--unit", "d1", "--out", str(report)),
            "plain training": ("train", "new", "--dataset", "rendered:5:12", "--reason", "test", *tiny),
        }.items():
            done = subprocess.run(
                [sys.executable, "-P", "-c", IMPATIENT, *command, "--json"],
                env=environment_of(store.settings),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, (command, done.stderr)
            assert f"{label}: " in done.stderr and json.loads(done.stdout), (command, done.stderr)
    finally:
        part.unlink()
