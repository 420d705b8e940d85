"""A home whose data are of an earlier PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.doctor.check import State
from pipeline.doctor.city import check_city
from pipeline.store import Store, embedded, embedded_home, schema
from pipeline.store.embedded_process import server_pid
from pipeline.store.embedded_programs import major_of
from schemas.errors import StoreError
from schemas.settings import Settings
from tests.helpers.catalog import catalog, rows
from tests.helpers.homes import copied_home, new_home, remove_home, use_postgresql_16
from tests.helpers.rows import fill


def settings_of(home: Path) -> Settings:
    return Settings(home=home, database_url=None)


@pytest.fixture(scope="module")
def earlier() -> Iterator[tuple[Path, dict[str, list[str]]]]:
    """A home of PostgreSQL 16, and its rows."""
    home = new_home()
    with pytest.MonkeyPatch.context() as patch:
        use_postgresql_16(patch)
        with Store.open(settings_of(home)) as store:
            fill(store)
        with embedded.hold(home) as server:
            found = rows(lambda: server.connect("urban_reid_owner"))
    yield home, found
    remove_home(home)


@pytest.fixture
def town(earlier: tuple[Path, object], home: Path) -> Iterator[Path]:
    copied = copied_home(earlier[0], home / "town")
    yield copied
    assert server_pid(copied / "postgres") is None and server_pid(copied / "postgres.next" / "postgres") is None


def check_upgraded(home: Path, was: dict[str, list[str]], server_18: embedded.EmbeddedServer) -> None:
    with Store.open(settings_of(home)) as store, store.begin() as connection:
        assert str(connection.scalar(text("SHOW server_version"))).startswith("18.")
    with embedded.hold(home) as server:
        assert rows(lambda: server.connect("urban_reid_owner")) == was
        found = {line for line in catalog(lambda: server.connect("urban_reid_owner")) if "_m1" not in line}
    assert found == {line for line in catalog(lambda: server_18.connect("urban_reid_owner")) if "_m1" not in line}
    assert sorted(path.name for path in home.glob("postgres*") if path.is_dir()) == ["postgres"]


def test_a_home_of_the_earlier_version_is_upgraded_with_a_word(
    earlier: tuple[Path, dict[str, list[str]]],
    town: Path,
    server: embedded.EmbeddedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    check, *_ = check_city(settings_of(town))
    assert (check.state, check.found) == (State.TO_DO, "it is of PostgreSQL 16, and this program has 18")
    assert major_of(town) == "16"  # the doctor only says it
    with Store.open(settings_of(town)):
        pass
    first, last = caplog.messages
    assert "is dumped before it goes from PostgreSQL 16 to 18, into" in first
    assert last == "the database is of PostgreSQL 18 now, with every row; it was of 16"
    check_upgraded(town, earlier[1], server)
    (dump,) = (town / "backups").iterdir()
    assert dump.name.startswith("postgresql16-") and dump.stat().st_mode & 0o777 == 0o600
    assert len(caplog.messages) == 2


_KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.store import embedded, embedded_upgrade
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
def renamed(self, to):
    done = rename(self, to)
    if self.name == "postgres" and Path(to).name == sys.argv[2]:
        die()
    return done
if sys.argv[2] == "read_dump":
    embedded_upgrade.read_dump = die
Path.rename = renamed
embedded.hold(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("step", ["read_dump", "postgres.before"])
def test_an_upgrade_that_is_killed_begins_anew_or_goes_on(
    earlier: tuple[Path, dict[str, list[str]]], town: Path, server: embedded.EmbeddedServer, step: str
) -> None:
    variables = os.environ | {"URBAN_REID_HOME": str(town)}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(town), step], env=variables, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert embedded_home.exists(town)
    check_upgraded(town, earlier[1], server)


def test_data_of_a_later_version_are_refused(town: Path) -> None:
    (town / "postgres" / "PG_VERSION").write_text("19\n")
    with pytest.raises(StoreError, match=r"is of PostgreSQL 19, and this program has 16 and 18; use .* a newer one$"):
        Store.open(settings_of(town))
    assert not (town / "backups").exists()


def test_an_upgrade_that_would_harm_others_is_refused(
    earlier: tuple[Path, dict[str, list[str]]], town: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        use_postgresql_16(patch)
        held = embedded.hold(town)
        superuser = held.connect("postgres", "postgres")
        superuser.autocommit = True
        superuser.cursor().execute("CREATE DATABASE another")
        superuser.close()
    with pytest.raises(StoreError, match=r"PostgreSQL 16, is to be brought to 18, and is in use"):
        embedded.hold(town)
    with monkeypatch.context() as patch:
        use_postgresql_16(patch)
        held.release()
    with pytest.raises(StoreError, match=r"has databases that are not ours, and would be lost: another; "):
        embedded.hold(town)
    with monkeypatch.context() as patch:
        use_postgresql_16(patch)
        with embedded.hold(town) as server, schema.session(lambda: server.connect("urban_reid_owner")) as connection:
            assert str(connection.scalar(text("SHOW server_version"))).startswith("16.")
            assert rows(lambda: server.connect("urban_reid_owner")) == earlier[1]
