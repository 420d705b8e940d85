"""An upgrade of several hosts: programs of the version before work on after the database was migrated."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.city.status import status
from pipeline.city.watermarks import mark_everything
from pipeline.registry import model_in_use
from pipeline.resolve import resolve_unit, units_within
from pipeline.store import Store, roles, schema, upgrade
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.user_supplied import supplied_url
from schemas.errors import StoreError
from schemas.settings import Settings
from tests.helpers.town import Town
from urban_reid.doctor import examine

ROOT = Path(__file__).parents[3]

#: The commit whose program is the one before. Moves on to that of the last release with each release.
PREVIOUS = "8f6a156cad72d1f271466b32706cecf18464e666"

#: What that program does: it opens the city, works, lets the database be migrated, and works on.
_WORK = """
import json, sys
from pathlib import Path
import schemas
from pipeline.city.status import status
from pipeline.search.request import request_search
from pipeline.search.search import search
from pipeline.store import Store
from pipeline.store.schema import head
from schemas.parameters import SearchParameters
from schemas.settings import settings
from sqlalchemy import text
from tests.helpers.homes import stay_open_in
from tests.helpers.town import Town

files, model = map(Path, sys.argv[1:])
lines = (files / "manifest.jsonl").read_text().splitlines()
stay_open_in(settings().home)
with Store.open(settings(), "previous") as store:
    town = Town(store, files, model)
    town.take_in(lines[:100])
    town.resolve()
    print(json.dumps({"head": head(), "place": str(Path(schemas.__file__).parents[1])}), flush=True)
    sys.stdin.readline()
    town.take_in(lines[100:150])
    written = town.resolve()
    with store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY captured_at DESC, key LIMIT 1"))
    asked = SearchParameters(unit="d1", crop_key=key, reason="a test", operator="me", top=5)
    request = request_search(store, town.model, asked)
    hits = search(store, lambda _: town.core, town.crops, town.model, request, asked).hits
    print(json.dumps({"written": written, "digest": status(store)["digest"], "key": key,
                      "found": [crop.key for crop in hits[0].crops], "hits": len(hits)}), flush=True)
"""


def previous_program(folder: Path) -> Path:
    """The files of the program before, from this checkout's history; skips where it does not reach back so far."""
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"no commit {PREVIOUS[:7]} here, a clone with its whole history has it: {archive.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.mark.system
def test_a_program_of_the_version_before_works_on_in_a_migrated_city(
    home: Path, tmp_path: Path, city_files: Path, model_folder: Path, store: Store, lines: list[str]
) -> None:
    settings, program = Settings(home=home, database_url=None), previous_program(tmp_path / "program")
    model_of_both = shutil.copytree(model_folder, tmp_path / "model")
    card = json.loads((model_of_both / "card.json").read_text())  # without fields that only newer programs know
    (model_of_both / "card.json").write_text(
        json.dumps({name: said for name, said in card.items() if said is not None})
    )
    with subprocess.Popen(
        [sys.executable, "-c", _WORK, str(city_files), str(model_of_both)],
        cwd=program,  # from where it imports
        env=os.environ | {"URBAN_REID_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        at_work = json.loads(process.stdout.readline())
        assert at_work["place"] == str(program) and at_work["head"] < schema.head()
        assert upgrade(settings) == (at_work["head"], schema.head())
        process.stdin.write("\n")
        process.stdin.flush()
        did: dict[str, Any] = json.loads(process.stdout.readline())
    assert process.returncode == 0
    assert did["written"] > 0 and did["hits"] > 0 and did["key"] in did["found"]
    town = Town(store, city_files, model_of_both)
    town.take_in(lines[:100])
    town.resolve()
    town.take_in(lines[100:150])
    town.resolve()
    assert did["digest"] == status(town.store)["digest"]
    with Store.open(settings, "pytest") as migrated:
        with migrated.begin() as connection:
            model = model_in_use(connection)
            mark_everything(connection)
        for code in units_within(migrated, "d1"):
            association = settings.association
            assert resolve_unit(migrated, town.core, model, code, settings=association).written == 0, code
        assert status(migrated)["digest"] == did["digest"]


def as_owner(server: EmbeddedServer, settings: Settings, *statements: str) -> None:
    database = str(supplied_url(settings).database)
    with schema.session(lambda: server.connect(roles.OWNER, database)) as connection, connection.begin():
        for statement in statements:
            connection.execute(text(statement))


#: A database of the version to come: a column more, and a revision that this program does not know.
_EXPAND = ("ALTER TABLE crop ADD COLUMN of_the_future text", "UPDATE alembic_version SET version_num = '9999'")
_CONTRACT = "CREATE OR REPLACE FUNCTION oldest_program() RETURNS text LANGUAGE sql IMMUTABLE RETURN '9999'"


def test_a_newer_database_that_lets_this_program_go_on_is_used_and_not_migrated(
    server: EmbeddedServer, town: Town, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = town.store.settings
    as_owner(server, settings, *_EXPAND)
    with Store.open(settings, "pytest") as store:
        assert "of a newer program (revision 9999), which lets this one" in caplog.text
        town.store = store
        town.take_in(lines[:60])
        assert town.resolve() > 0
    assert schema.revision(settings) == ("9999", schema.head())
    assert next(check.found for check in examine(settings) if check.name == "database").count("revision 9999") == 1
    with pytest.raises(StoreError, match="revision 9999, which this program does not know; use a newer program"):
        upgrade(settings)


def test_a_newer_database_that_needs_newer_programs_is_refused(server: EmbeddedServer, settings: Settings) -> None:
    as_owner(server, settings, *_EXPAND, _CONTRACT)
    with pytest.raises(StoreError, match="revision 9999, which this program does not know; use a newer program"):
        Store.open(settings)


@pytest.mark.parametrize("role", roles.PROGRAM)
def test_no_role_of_the_program_says_which_programs_may_use_the_database(
    server: EmbeddedServer, settings: Settings, role: str
) -> None:
    database = str(supplied_url(settings).database)
    with schema.session(lambda: server.connect(role, database)) as connection:
        assert connection.scalar(text("SELECT oldest_program()")) <= schema.head()
        with pytest.raises(Exception, match=r"must be owner of function oldest_program|permission denied"):
            connection.execute(text(_CONTRACT))
