"""Interruptions in the middle of a command: it continues or ends with one line; nothing is lost or written twice."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import store_city
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store, embedded, upgrade
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.embedded_process import server_pid
from schemas.city_file import City
from schemas.errors import StoreUnavailable
from schemas.settings import Settings
from tests.helpers.command_line import environment_of, error_of, messages_of, program
from tests.helpers.homes import fresh_settings, program_url
from tests.helpers.pictures import UNITS, picture
from tests.helpers.pool import eventually
from tests.helpers.town import Town

RESOLVE = ("resolve", "--unit", "d1", "--json")
PATIENCE_S = 240.0
TAKEN_IN = 150


@pytest.fixture(scope="module")
def undisturbed(server: EmbeddedServer, city_files: Path, model_folder: Path) -> str:
    """The digest of the same crops without an interruption."""
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:TAKEN_IN])
        assert town.resolve() > 0
        return digest(store)


@contextmanager
def running(settings: Settings, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        program(*arguments),
        env=environment_of(settings),
        cwd=settings.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        program(*arguments), env=environment_of(settings), cwd=settings.home, capture_output=True, text=True
    )


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection, None)


def scalar(store: Store, sql: str) -> Any:
    with store.begin() as connection:
        return connection.scalar(text(sql))


def written_twice(store: Store) -> int:
    return int(
        scalar(
            store,
            "SELECT count(*) FROM (SELECT 1 FROM run WHERE superseded_at IS NULL GROUP BY unit, window_start "
            "HAVING count(*) > 1 UNION ALL SELECT 1 FROM crop_embedding GROUP BY crop_id HAVING count(*) > 1) AS twice",
        )
    )


def wait_for_rows(store: Store, table: str, process: "subprocess.Popen[str]") -> None:
    """Waits until `process` has written to `table`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            if scalar(store, f"SELECT EXISTS (SELECT FROM {table})"):
                return
        except StoreUnavailable:  # the server is just being started again
            continue
        time.sleep(0.02)
    raise AssertionError(f"nothing was written to {table}")


def runs_of(store: Store, unit: str) -> int:
    """The unit's runs, once a server that was just stopped is back."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return int(scalar(store, f"SELECT count(*) FROM run WHERE unit = '{unit}'"))
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def stop_at_once(home: Path) -> None:
    """Ends the embedded server without a checkpoint, as a loss of power would; returns once it has ended."""
    pid = server_pid(home / "postgres")
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    eventually(lambda: server_pid(home / "postgres") != pid)  # until then it may answer once more


@pytest.fixture
def embedded_town(home: Path, city_files: Path, model_folder: Path, lines: list[str]) -> Iterator[Town]:
    """The city with its crops, not yet resolved, on an embedded server that the test may stop."""
    with Store.open(Settings(home=home, database_url=None), "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in(lines[:TAKEN_IN])
        yield town


def test_the_database_is_stopped_twice_in_the_middle(embedded_town: Town, undisturbed: str) -> None:
    """While crops are embedded, and while identities are written: the resolve starts it again and succeeds."""
    store = embedded_town.store
    with running(store.settings, *RESOLVE) as process:
        for table in ("crop_embedding", "run"):
            wait_for_rows(store, table, process)
            stop_at_once(store.settings.home)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
    assert json.loads(out)["digest"] == undisturbed == digest(store)
    assert written_twice(store) == 0
    again = json.loads(run(store.settings, *RESOLVE).stdout)
    assert (again["written"], again["digest"]) == (0, undisturbed)


def test_what_a_unit_wrote_is_there_after_a_loss_of_power(embedded_town: Town) -> None:
    """The units above go on from it in the same process, so it must not be lost once `resolve_unit` has returned."""
    store, model = embedded_town.store, embedded_town.model
    for camera in [code for code in units_within(store, "d1") if code.count("/") == 3][:3]:
        embed_camera(store, embedded_town.core, embedded_town.crops, model, camera)
        done = resolve_unit(store, embedded_town.core, model, camera, settings=store.settings.association)
        stop_at_once(store.settings.home)
        assert runs_of(store, camera) == done.changed > 0


@pytest.fixture
def user_supplied(home: Path) -> Iterator[Settings]:
    """Settings of a program with a user-supplied server, which it does not start again: the embedded one of `home`."""
    with embedded.hold(home) as server:
        upgrade(Settings(home=home, database_url=None))
        (home / "other").mkdir()
        yield Settings(home=home / "other", database_url=program_url(server))


@pytest.mark.slow
def test_the_database_is_stopped_and_stays_away(
    user_supplied: Settings, city_files: Path, model_folder: Path, lines: list[str], undisturbed: str
) -> None:
    """The resolve ends with one line when its retries are used up; once the database is back, another does the rest."""
    home = user_supplied.home.parent
    with Store.open(user_supplied, "pytest") as store:
        Town(store, city_files, model_folder).take_in(lines[:TAKEN_IN])
        with running(user_supplied, *RESOLVE) as process:
            wait_for_rows(store, "run", process)
            stop_at_once(home)
            out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1 and out == ""
        first, last = messages_of(err)
        assert "does not answer" in first and first.endswith("; trying again")
        fault = json.loads(last)  # as --json asks for it
        assert fault["error"] == "StoreUnavailable" and "does not answer" in fault["message"]
        assert "URBAN_REID_DATABASE_URL" in last
        assert "does not answer" in error_of(run(user_supplied, "status"), 1)
        with embedded.hold(home):
            assert scalar(store, "SELECT count(*) FROM run") > 0
            found = json.loads(run(user_supplied, *RESOLVE).stdout)
            assert found["written"] > 0 and found["digest"] == undisturbed == digest(store)
            assert written_twice(store) == 0


@pytest.mark.parametrize("table", [pytest.param("crop_embedding", marks=pytest.mark.slow), "run"])
def test_the_command_is_killed_in_the_middle(
    server: EmbeddedServer, city_files: Path, model_folder: Path, lines: list[str], undisturbed: str, table: str
) -> None:
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        Town(store, city_files, model_folder).take_in(lines[:TAKEN_IN])
        with running(settings, *RESOLVE) as process:
            wait_for_rows(store, table, process)
            process.kill()
            process.wait()
        found = json.loads(run(settings, *RESOLVE).stdout)
        assert found["digest"] == undisturbed == digest(store)
        assert written_twice(store) == 0


def test_the_disk_of_the_crops_is_full(server: EmbeddedServer, small_disk: Path, tmp_path: Path) -> None:
    """One line, and no row of what did not fit; with enough room, the same command writes what is missing."""
    large = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (256, 256, 3), np.uint8))[1].tobytes()
    for number, data in enumerate([picture(0), picture(1), large, picture(2)]):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(
        "\n".join(
            json.dumps({"path": f"{n}.jpg", "camera": "d1/s1/b1/c1", "time": f"2026-01-01T08:00:0{n}Z"})
            for n in range(4)
        )
    )
    with fresh_settings(server) as elsewhere, Store.open(elsewhere, "pytest") as store:
        store_city(store, City.model_validate({"units": UNITS}))
        full = elsewhere.model_copy(update={"home": small_disk})
        assert "no space left for crops" in error_of(run(full, "ingest", "manifest", str(manifest)), 1)
        assert scalar(store, "SELECT (SELECT count(*) FROM crop) + (SELECT count(*) FROM watermark)") == 0
        assert not list(small_disk.rglob("*.part"))
        done = run(elsewhere, "ingest", "manifest", str(manifest), "--json")
        assert json.loads(done.stdout)["written"] == 4
