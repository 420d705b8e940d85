"""Data directories whose paths hold what programs tend to mistake for something else."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.helpers.command_line import environment_of, program
from tests.helpers.homes import remove_home
from tests.helpers.town import Town


@pytest.mark.parametrize(
    "name", ['it\'s $HOME `id` "q"; & <b>', "new\nline\t", "caf\u00e9", "?a=b&c#d%20e:@f.db", "-x"], ids=ascii
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
