"""Data directories and databases for tests."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Connection, make_url

from flows.server import PrefectServer
from pipeline.store import Store, embedded, embedded_programs, embedded_upgrade, roles, schema
from pipeline.store.embedded_process import DATABASE
from pipeline.store.embedded_programs import account_of
from schemas.settings import Settings


def new_home() -> Path:
    """A folder that the database's user can reach, unlike pytest's; the caller removes it."""
    home = Path(tempfile.mkdtemp(prefix="urban-reid-test-"))
    home.chmod(0o711)
    return home


def remove_home(home: Path) -> None:
    """Ends the Prefect server that still runs for a data directory, if there is one, and removes the directory.

    A program of a test that was ended may write a last file meanwhile, so it is removed again for a while.
    """
    if (home / "prefect").is_dir():
        PrefectServer(Settings(home=home)).stop()
    for _ in range(100):
        shutil.rmtree(home, ignore_errors=True)
        if not home.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(home)


def copied_home(home: Path, to: Path) -> Path:
    """A copy of a home whose server is stopped; the database's files keep their owner."""
    shutil.copytree(home, to, symlinks=True)
    account = account_of(home)
    to.chmod(0o711)
    for path in (to / "postgres", *(to / "postgres").rglob("*")):
        os.chown(path, account.uid, account.gid)
    return to


def use_postgresql_16(patch: pytest.MonkeyPatch) -> None:
    """Makes this process the program that uses PostgreSQL 16, which does not know one of our settings."""
    patch.setattr(embedded_programs, "MAJOR", "16")
    patch.setattr(embedded_upgrade, "MAJOR", "16")
    patch.delitem(embedded._CONFIGURATION, "io_method", raising=False)


def program_url(server: embedded.EmbeddedServer, database: str = DATABASE) -> str:
    """An address of the server's database as for a user-supplied one: of a login that may act as each of our roles."""
    superuser = server.connect(roles.SUPERUSER, "postgres")
    with superuser, superuser.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'program'")
        if cursor.fetchone() is None:
            cursor.execute("CREATE ROLE program LOGIN NOINHERIT PASSWORD 'of the program'")
            cursor.execute(f"GRANT {', '.join((roles.OWNER, *roles.PROGRAM))} TO program")
    superuser.close()
    where = make_url(server.url()).query
    return URL.create("postgresql", "program", "of the program", database=database, query=where).render_as_string(False)


@contextmanager
def fresh_settings(server: embedded.EmbeddedServer, like: Settings | None = None) -> Iterator[Settings]:
    """Settings with an empty home and a fresh, migrated database of the session's server as a user-supplied server.

    like: a copy of this home and its database in place of empty ones; nobody is connected to that.
    A program started by a test gets the same through URBAN_REID_HOME and URBAN_REID_DATABASE_URL.
    """
    home, database, template = new_home(), f"test_{uuid4().hex[:12]}", "template_city"
    if like is not None:
        assert like.database_url is not None
        template = str(make_url(like.database_url).database)
        shutil.copytree(like.home, home, dirs_exist_ok=True)
    superuser = server.connect("postgres", "postgres")
    superuser.autocommit = True
    with superuser.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} TEMPLATE {template} OWNER {roles.OWNER}")
        try:
            yield Settings(home=home, database_url=program_url(server, database))
        finally:
            cursor.execute(f"DROP DATABASE {database} WITH (FORCE)")
            superuser.close()
            remove_home(home)


def stay_open(connect: Callable[[], Any]) -> None:
    """Keeps a city open, whatever is taken in, for tests that are not about who may see it.

    `connect` returns a psycopg2 connection as urban_reid_owner or a superuser. The database of `settings` is made so.
    """
    _as_owner(
        connect,
        "ALTER TABLE ingest_batch DISABLE TRIGGER city_kind_of_batch",
        "UPDATE city SET kind = 'synthetic' WHERE kind = 'live'",
    )


def stay_open_in(home: Path) -> None:
    """`stay_open` for the embedded database of a home, which is made if there is none."""
    with Store.open(Settings(home=home), "pytest"), embedded.hold(home) as server:
        stay_open(lambda: server.connect(roles.OWNER))


def become_live(connect: Callable[[], Any]) -> None:
    """Makes a loaded city one with people of real cameras, as the first crop of one does."""
    _as_owner(
        connect,
        "ALTER TABLE ingest_batch ENABLE TRIGGER city_kind_of_batch",
        "UPDATE city SET kind = 'live'",
    )


def past_case_rules(connect: Callable[[], Any]) -> None:
    """Lets tests write cases and authorizations as rows, whoever asked and approved."""
    _as_owner(
        connect,
        "ALTER TABLE case_file DISABLE TRIGGER USER",
        "ALTER TABLE case_authorization DISABLE TRIGGER USER",
    )


def _as_owner(connect: Callable[[], Any], *statements: str) -> None:
    with closing(connect()) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def unbound(server: embedded.EmbeddedServer, settings: Settings) -> Iterator[Connection]:
    """One transaction as the server's superuser, whom no rule binds: for what a test only sets up or looks at."""
    with schema.session(superuser_of(server, settings)) as connection, connection.begin():
        yield connection


def superuser_of(server: embedded.EmbeddedServer, settings: Settings) -> Callable[[], Any]:
    """Connects to the database of a fixture's settings as the server's superuser."""
    assert settings.database_url is not None
    database = make_url(settings.database_url).database
    return lambda: server.connect(roles.SUPERUSER, str(database))
