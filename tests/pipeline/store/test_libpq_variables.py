"""The embedded server and its clients see none of libpq's environment variables."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from pipeline.store import Store, embedded, roles
from pipeline.store.embedded_process import server_pid
from schemas.settings import Settings

#: All that the chapter "Environment Variables" of libpq's manual names, up to PostgreSQL 18.
LIBPQ_VARIABLES = [
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGREQUIREAUTH"),
    *("PGCHANNELBINDING", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS", "PGAPPNAME", "PGSSLMODE", "PGREQUIRESSL"),
    *("PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLCRL"),
    *("PGSSLCRLDIR", "PGSSLSNI", "PGREQUIREPEER", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION"),
    *("PGGSSENCMODE", "PGKRBSRVNAME", "PGGSSLIB", "PGGSSDELEGATION", "PGCONNECT_TIMEOUT", "PGCLIENTENCODING"),
    *("PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION", "PGDATESTYLE"),
    *("PGTZ", "PGGEQO", "PGSYSCONFDIR", "PGLOCALEDIR"),
]
_SESSION = (
    "SELECT current_setting('timezone'), current_setting('datestyle'), current_setting('client_encoding'), "
    "current_setting('geqo'), current_setting('search_path'), current_setting('application_name'), current_user"
)


@pytest.fixture(scope="module")
def held(used_home: Path) -> Iterator[embedded.EmbeddedServer]:
    with embedded.hold(used_home) as server:
        yield server


def session(server: embedded.EmbeddedServer) -> object:
    connection = server.connect(roles.APP)
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)
        found = cursor.fetchone()
    connection.close()
    return found


@pytest.mark.parametrize("name", LIBPQ_VARIABLES)
@pytest.mark.parametrize("value", ["nonsense", "1"])
def test_no_variable_of_libpq_reaches_a_session(
    held: embedded.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    wanted = session(held)
    monkeypatch.setenv(name, value)
    assert session(held) == wanted
    assert os.environ[name] == value  # nobody else loses it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGTZ", "Asia/Tokyo"),
        ("PGDATESTYLE", "SQL, DMY"),
        ("PGCLIENTENCODING", "LATIN1"),
        ("PGGEQO", "off"),
        ("PGOPTIONS", "-c search_path=pg_catalog"),
        ("PGAPPNAME", "another"),
    ],
)
def test_no_valid_setting_of_libpq_reaches_a_session(
    held: embedded.EmbeddedServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    wanted = session(held)
    monkeypatch.setenv(name, value)
    assert session(held) == wanted


def test_a_server_is_created_and_stopped_whatever_the_variables_say(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LIBPQ_VARIABLES:
        monkeypatch.setenv(name, "5433")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    with Store.open(Settings(home=home, database_url=None)) as store, store.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM urban_unit")) == 0
    assert server_pid(home / "postgres") is None


def test_the_address_for_other_programs_is_complete(
    held: embedded.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"):
        monkeypatch.setenv(name, "5433")
    psycopg2.connect(held.url()).close()
