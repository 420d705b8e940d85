"""Data directories whose paths hold what programs tend to mistake for something else."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from schemas.settings import Settings
from tests.helpers.command_line import Run, environment_of, error_of, program
from tests.helpers.homes import remove_home
from tests.helpers.prefect_api import secret_of, send
from tests.helpers.town import Town

pytestmark = pytest.mark.system

NAMES = ('it\'s $HOME `id` "q"; & <b>', "new\nline\t", "caf\u00e9", "?a=b&c#d%20e:@f.db", "-x")


@pytest.mark.parametrize(
    "name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])], ids=ascii
)
def test_a_run_in_a_data_directory_of_any_name(town: Town, lines: list[str], tmp_path: Path, name: str) -> None:
    town.take_in(lines[:40])
    home = town.store.settings.home
    strange = home.with_name(f"{home.name}-{name}")
    home.rename(strange)
    try:
        done = subprocess.run(
            program("resolve", "--unit", "d1", "--json"),
            env=environment_of(town.store.settings) | {"URBAN_REID_HOME": str(strange)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["written"] > 0 and (strange / "prefect" / "prefect.db").exists()
    finally:
        remove_home(strange)
        home.mkdir()


@pytest.mark.slow
def test_up_in_a_data_directory_of_any_name(town: Town, lines: list[str], tmp_path: Path) -> None:
    town.take_in(lines[:40])
    home = town.store.settings.home
    strange = home.rename(home.with_name(f"{home.name}-{''.join(NAMES)}"))
    environment = environment_of(town.store.settings) | {"URBAN_REID_HOME": str(strange)}
    up = subprocess.Popen(
        program("up", "--json"),
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        assert json.loads(up.stdout.readline() or json.dumps(up.communicate()))["home"] == str(strange)
        handed = subprocess.run(
            program("resolve", "--unit", "d1", "--no-wait", "--json"),
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert handed.returncode == 0, handed.stderr
        url = json.loads(handed.stdout)["url"].replace("/runs/flow-run/", "/api/flow_runs/")
        while (run := send("GET", url, secret_of(strange)).json())["state_type"] not in (
            "COMPLETED",
            "FAILED",
            "CRASHED",
        ):
            time.sleep(0.5)
        assert run["state_type"] == "COMPLETED", (strange / "prefect" / "runner.log").read_text()[-2000:]
        up.send_signal(signal.SIGTERM)
        assert up.wait(240) == 0
    finally:
        up.kill()
        up.communicate()
        remove_home(strange)
        home.mkdir()


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_anything_starts(run: Run, settings: Settings) -> None:
    long = settings.home / ("x" * 100)
    assert error_of(run("up", URBAN_REID_HOME=str(long)), 1).endswith("shorten URBAN_REID_HOME")
    assert not long.exists()
