"""urban-reid ingest list and undo, and the resolve after it."""

import json
from pathlib import Path

import pytest

from pipeline.city.units import read_city_file, store_city
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.settings import Settings
from tests.helpers.command_line import Run
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town


def test_what_makes_a_home_live_says_so_once(
    run_here: Run, server: EmbeddedServer, settings: Settings, store: Store, city_files: Path
) -> None:
    store_city(store, read_city_file(city_files / "city.yaml"))
    superuser = superuser_of(server, settings)()
    with superuser, superuser.cursor() as cursor:
        cursor.execute("ALTER TABLE ingest_batch ENABLE TRIGGER city_kind_of_batch; UPDATE city SET kind = 'empty'")
    superuser.close()
    manifest = str(city_files / "manifest.jsonl")
    first, again = run_here("ingest", "manifest", manifest), run_here("ingest", "manifest", manifest)
    assert first.returncode == again.returncode == 0, first.stderr
    assert "has people of real cameras now" in first.stderr and "docs/guides/accounts.md" in first.stderr
    assert "has people of real cameras now" not in again.stderr


@pytest.fixture
def taken_in(town: Town, lines: list[str]) -> Town:
    town.take_in(lines[:20])
    return town


def test_an_ingest_is_listed_and_undone(taken_in: Town, run_here: Run) -> None:
    (batch,) = json.loads(run_here("ingest", "list", "--json").stdout)["batches"]
    assert (batch["id"], batch["door"], batch["crops"], batch["undone_at"]) == (1, "manifest", 20, None)
    assert batch["name"].endswith(".jsonl")
    refused = run_here("ingest", "undo", "1", "--reason", " ")
    assert refused.returncode == 2 and "--reason: may not be blank" in refused.stderr
    words = ("ingest", "undo", "1", "--operator", "anna", "--reason", "wrong camera")
    done = run_here(*words)
    assert done.returncode == 0, done.stderr
    assert "20 crops withdrawn, 20 pictures removed; 0 crops stay" in done.stdout
    assert "`urban-reid resolve --unit d1` decides the windows concerned anew" in done.stdout
    assert "batch 1 holds no crops" in run_here(*words).stdout
    listed = run_here("ingest", "list").stdout
    assert "undone by anna: wrong camera" in listed and "begun (Europe/Berlin)" in listed
    status = run_here("status")
    assert "0 crops" in status.stdout and "20 crops withdrawn by `urban-reid ingest undo`" in status.stdout


def test_a_batch_that_is_not_there_is_one_line(taken_in: Town, run_here: Run) -> None:
    ended = run_here("ingest", "undo", "9", "--reason", "wrong camera")
    assert ended.returncode == 2
    assert "there is no batch 9; `urban-reid ingest list` shows them" in ended.stderr


@pytest.mark.system
def test_a_resolve_after_an_undo_and_one_that_finds_nothing(taken_in: Town, run: Run) -> None:
    resolve = ("resolve", "--unit", "d1")
    assert "nothing to do" not in run(*resolve).stdout
    before = run(*resolve)
    assert "nothing to do: nothing came in since d1 was resolved last" in before.stdout
    again = run(*resolve, "--again", "--reason", "to be sure", "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["written"] == 0 and found["digest"] in before.stdout  # the model in use has decided all of it
    assert run("ingest", "undo", "1", "--reason", "wrong camera").returncode == 0
    assert "nothing to do" not in run(*resolve).stdout
    assert "nothing to do: there are no crops in d1" in run(*resolve).stdout
