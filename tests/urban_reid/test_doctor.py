"""`urban-reid doctor` on a whole home and on a broken one, whose page docs/guides/doctor.md shows."""

import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.crops.crop_store import place_of_crop
from pipeline.doctor.check import State
from pipeline.store import Store, roles
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.user_supplied import supplied_url
from schemas.disk import lock, open_lock
from schemas.settings import Settings
from tests.helpers.command_line import Run, environment_of
from tests.helpers.town import Town
from urban_reid.doctor import examine

Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def doctor(run: Run) -> Doctor:
    """Exit code of `doctor --json`, and its checks by name."""

    def call(*arguments: str, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
        done = run("doctor", "--json", *arguments, **variables)
        assert done.stdout.count("\n") == 1, done.stderr
        found = json.loads(done.stdout)
        assert found["ok"] is (done.returncode == 0)
        assert all((check["remedy"] is not None) is (check["state"] == "to do") for check in found["checks"])
        return done.returncode, {check["name"]: check for check in found["checks"]}

    return call


def test_a_whole_home_has_nothing_to_do(town: Town, lines: list[str], doctor: Doctor) -> None:
    town.take_in(lines[:12])
    doctor("--fix")  # the crops were taken in by this process, with pytest's umask
    code, found = doctor()
    assert {name: check["state"] for name, check in found.items() if check["state"] != "ok"} == {}
    assert code == 0
    assert list(found) == [
        *(
            "home",
            "permissions",
            "disk",
            "logs",
            "versions",
            "database",
            "rows",
            "keys",
            "pictures",
            "files",
            "context",
            "models",
            "arithmetic",
            "clock",
            "growth",
            "detectors",
        ),
        *("up", "prefect", "core"),
    ]
    assert "12 pictures" in found["pictures"]["found"] and "is in use" in found["models"]["found"]
    assert not (town.store.settings.home / "prefect").exists()  # nothing was started


def test_a_broken_home(town: Town, lines: list[str], doctor: Doctor, run: Run, server: EmbeddedServer) -> None:
    town.take_in(lines[:12])
    settings = town.store.settings
    with town.store.begin() as connection:
        rows = connection.execute(text("SELECT camera, captured_at, picture FROM crop ORDER BY id LIMIT 2")).all()
    places = [(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in rows]
    pictures = [town.crops.root / town.crops.name(place, picture) for place, picture in places]
    pictures[0].unlink()
    (settings.crops_dir / "letter.txt").write_text("no picture")
    part = pictures[1].with_name(pictures[1].name + ".0123.part")
    part.write_bytes(b"half")
    os.utime(part, (0, 0))
    settings.home.chmod(0o755)
    (settings.models_dir / "test" / "weights.safetensors").write_bytes(b"damaged")
    (settings.home / "prefect").mkdir()
    with (settings.home / "core.log").open("wb") as file:
        file.truncate(200_000_000)
    owner = server.connect(roles.OWNER, supplied_url(settings).database or "")
    with owner, owner.cursor() as cursor:
        # Its picture's place follows from its time, so it has none any more, and its file is no crop's.
        cursor.execute("UPDATE crop SET captured_at = now() + interval '2 days' WHERE id = (SELECT max(id) FROM crop)")
    owner.close()
    with (
        open_lock(settings.home / "up.lock") as up,
        open_lock(settings.home / "prefect" / "server.lock") as prefect,
        socket.create_server(("127.0.0.1", 0)) as nobody,
    ):
        lock(up)
        lock(prefect)
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/api"
        nobody.close()
        (settings.home / "prefect" / "server.json").write_text(json.dumps({"url": address, "pid": 1}))
        code, found = doctor()
        page = run("doctor").stdout
    assert code == 1
    said = {name: check["found"] for name, check in found.items() if check["state"] == "to do"}
    expected = {
        "permissions": "other users can open",
        "logs": "core.log",
        "pictures": f"2 of 12 pictures have no file, for example {pictures[0]}",
        "files": "2 files in .* are no picture of a crop, and 1 are parts",
        "models": "SHA-256",
        "clock": "a crop was taken at .*, which lies in the future",
        "prefect": f"the server at {address} does not answer",
        "core": "does not listen",
    }
    assert said.keys() == expected.keys()

    assert {name: said[name] for name, pattern in expected.items() if not re.search(pattern, said[name])} == {}
    for name in expected:
        assert f"to do    {name}" in page
        assert f"-> {found[name]['remedy']}" in page
    assert "\x1b" not in page


@pytest.mark.parametrize("fault", ["missing", "open to others"])
def test_without_its_key_file_a_home_is_looked_at_to_the_end(
    town: Town, lines: list[str], doctor: Doctor, fault: str
) -> None:
    town.take_in(lines[:4])
    file = town.store.settings.home / "key-file"
    if fault == "missing":
        file.rename(file.with_name("elsewhere"))
    else:
        file.chmod(0o644)
    code, found = doctor()
    assert code == 1
    assert (found["keys"]["state"], str(file) in found["keys"]["found"]) == ("to do", True)
    assert [found[name]["state"] for name in ("pictures", "files", "context")] == ["unknown", "unknown", "ok"]
    assert found["models"]["state"] == "ok"


def test_fix_closes_the_home_and_changes_nothing_else(town: Town, lines: list[str], doctor: Doctor) -> None:
    town.take_in(lines[:4])
    home = town.store.settings.home
    home.chmod(0o755)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert doctor()[1]["permissions"]["state"] == "to do"
    assert doctor("--fix")[1]["permissions"]["state"] == "ok"
    assert home.stat().st_mode & 0o077 == 0
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_a_database_that_cannot_be_looked_at(settings: Settings, doctor: Doctor, server: EmbeddedServer) -> None:
    code, found = doctor(URBAN_REID_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/city")
    assert code == 1 and "does not answer" in found["database"]["found"]
    assert {name for name, check in found.items() if check["state"] == "unknown"} >= {"pictures", "models", "clock"}
    owner = server.connect(roles.OWNER, supplied_url(settings).database or "")
    with owner, owner.cursor() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = '0001'")
    owner.close()
    code, found = doctor()
    assert code == 1 and "revision 0001" in found["database"]["found"]
    assert "urban-reid db upgrade" in found["database"]["remedy"]


def test_no_home_is_made(doctor: Doctor, tmp_path: Path) -> None:
    code, found = doctor(URBAN_REID_HOME=str(tmp_path / "nothing"))
    assert code == 1 and list(found) == ["home"]
    assert not (tmp_path / "nothing").exists()


def test_the_embedded_database_is_started_for_the_look_and_ended(home: Path, run: Run, settings: Settings) -> None:
    own = Settings(home=home / "own", database_url=None)
    Store.open(own).close()
    variables = environment_of(own) | {"URBAN_REID_DATABASE_URL": ""}
    done = run("doctor", **variables)
    assert done.returncode == 0, done.stdout
    assert "embedded PostgreSQL" in done.stdout
    assert not (own.home / "postgres" / "postmaster.pid").exists()
    with Store.open(own) as store, store.signed_in() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit")) == 0
    shutil.rmtree(own.home)


def test_a_prefect_server_that_just_ends_is_no_fault(settings: Settings) -> None:
    (settings.home / "prefect").mkdir()
    (settings.home / "prefect" / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1/api", "pid": 1}))
    ending = open_lock(settings.home / "prefect" / "server.lock")
    lock(ending)
    end = threading.Timer(0.5, ending.close)
    end.start()
    (found,) = (check for check in examine(settings) if check.name == "prefect")
    end.join()
    assert (found.state, found.found) == (State.OK, "its server has just ended; a command that needs it starts it")
