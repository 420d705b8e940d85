"""A run in the environment of other programs: another Prefect's settings, its files, proxies that nobody can use."""

import json
import sqlite3
import subprocess
from pathlib import Path

import prefect.settings
import pytest
from prefect.settings.legacy import _get_settings_fields

from tests.helpers.command_line import Run, environment_of, program
from tests.helpers.town import Town

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.mark.system
def test_another_prefects_settings_and_unusable_proxies_change_nothing(
    town: Town, lines: list[str], tmp_path: Path
) -> None:
    town.take_in(lines[:40])
    other = f"sqlite+aiosqlite:///{tmp_path}/other.db"
    theirs = {name: other for name in _get_settings_fields(prefect.settings.Settings) if name.startswith("PREFECT")}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in theirs.items()))
    (tmp_path / "prefect.toml").write_text(f'[server.database]\nconnection_url = "{other}"\nport = "x"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.prefect]\nprofiles_path = "profiles.toml"\nhome = 5\n')
    (tmp_path / "profiles.toml").write_text('active = "theirs"\n[profiles.theirs]\nPREFECT_API_URL = "x"\n')
    proxies = dict.fromkeys(PROXIES, "socks5://127.0.0.1:9") | {"no_proxy": "example.org"}
    done = subprocess.run(
        program("resolve", "--unit", "d1", "--json"),
        env=environment_of(town.store.settings) | theirs | {k.lower(): v for k, v in theirs.items()} | proxies,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".env",
        "prefect.toml",
        "profiles.toml",
        "pyproject.toml",
    ]
    with sqlite3.connect(town.store.settings.home / "prefect" / "prefect.db") as database:
        assert database.execute("SELECT name, state_type FROM flow_run").fetchall() == [("d1", "COMPLETED")]


def test_a_misspelt_variable_is_told_in_one_line(run: Run) -> None:
    done = run("city", "show", URBAN_REID_OPERATR="me")
    told = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert told == ["warning: URBAN_REID_OPERATR is no setting and is ignored; did you mean URBAN_REID_OPERATOR?"]
