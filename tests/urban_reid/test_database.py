"""urban-reid db, on an embedded server in a home of its own."""

import json
import os
import subprocess
from pathlib import Path

import psycopg2
import pytest

from schemas.settings import Settings
from tests.helpers.command_line import environment_of, error_of, program


def run(home: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = environment_of(Settings(home=home, database_url=None)) | variables
    environment.pop("URBAN_REID_DATABASE_URL", None)
    return subprocess.run(program(*arguments), env=environment, cwd="/", capture_output=True, text=True)


@pytest.mark.system
def test_a_home_with_an_odd_name_in_a_hostile_environment_and_then_without_its_passwords(home: Path) -> None:
    odd = home / "a\"b'$HOME`id` %s,ü"
    hostile = {"PGPORT": "5433", "PGSERVICE": "nowhere", "PGTZ": "Mars/Base", "PGHOST": "db.invalid"}
    made = run(odd, "db", "upgrade", "--json", **hostile)
    assert json.loads(made.stdout)["before"] is None, made.stderr
    state = run(odd, "db", "status", "--json", **hostile)
    assert json.loads(state.stdout)["running"] is False and str(odd) in json.loads(state.stdout)["where"]

    (odd / "postgres.json").write_bytes(b"")
    for command in (("status",), ("city", "show"), ("db", "url")):
        said = error_of(run(odd, *command), 1)
        assert "postgres.json" in said and "is damaged" in said and "urban-reid db reset-passwords" in said
    assert "running" in run(odd, "db", "status").stdout  # it asks for no password to see that nothing runs
    reset = run(odd, "db", "reset-passwords", "--json", **hostile)
    assert json.loads(reset.stdout) == {"reset": True}, reset.stderr
    assert json.loads(run(odd, "status", "--json", **hostile).stdout)["crops"] == 0


def test_no_command_leaves_a_server_running(home: Path) -> None:
    address = json.loads(run(home, "db", "url", "--json").stdout)["url"]
    with pytest.raises(psycopg2.OperationalError, match="No such file or directory"):  # nothing of ours is left running
        psycopg2.connect(address)
    assert run(home, "db", "stop").stdout == "the database was not running\n"


def test_a_home_whose_path_is_not_utf_8(home: Path) -> None:
    odd = os.fsdecode(bytes(home) + b"/a\xffb")
    done = subprocess.run(
        program("status"), env=environment_of(Settings(home=home)) | {"URBAN_REID_HOME": odd}, capture_output=True
    )
    assert done.returncode in (1, 2) and done.stderr.count(b"\n") == 1
    assert b"URBAN_REID_HOME" in done.stderr
    assert not list(home.iterdir())


def test_a_backup_from_the_command_line(home: Path) -> None:
    assert "there is no database in" in error_of(run(home / "city", "db", "backup", str(home / "backup")), 1)
    assert run(home / "city", "db", "upgrade").returncode == 0
    backed_up = run(home / "city", "db", "backup", str(home / "backup"), "--json")
    manifest = json.loads(backed_up.stdout)["manifest"]
    assert manifest["decision_digest"] in run(home, "db", "verify", str(home / "backup")).stdout
    restored = json.loads(run(home / "restored", "db", "restore", str(home / "backup"), "--json").stdout)
    assert restored["digest"] == manifest["decision_digest"] and restored["manifest"] == manifest
    assert "is not empty" in error_of(run(home / "city", "db", "backup", str(home / "restored")), 2)
    (home / "backup" / manifest["database"]["name"]).unlink()
    found = run(home, "db", "verify", str(home / "backup"), "--json")
    assert found.returncode == 1 and len(json.loads(found.stdout)["faults"]) == 1
    assert "has 1 faults" in run(home, "db", "verify", str(home / "backup")).stdout
