"""Shared fixtures: one embedded server for the session, and a fresh database of it for each test."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.store import Store, embedded, roles, schema
from schemas.settings import Settings


def new_home() -> Path:
    """A folder that the database's own user can reach, unlike pytest's; the caller removes it."""
    home = Path(tempfile.mkdtemp(prefix="urban-reid-test-"))
    home.chmod(0o711)
    return home


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.EmbeddedServer]:
    """The session's server, with a migrated database `template_city` that nobody is connected to."""
    home = new_home()
    with embedded.hold(home) as held:
        superuser = held.connect("postgres", "postgres")
        superuser.autocommit = True
        with superuser.cursor() as cursor:
            # A test's data need not outlive the machine; everything else is as in use.
            for setting in ("fsync = off", "full_page_writes = off"):
                cursor.execute(f"ALTER SYSTEM SET {setting}")
            cursor.execute("SELECT pg_reload_conf()")
            schema.migrate(lambda: held.connect(roles.OWNER))
            cursor.execute(f"CREATE DATABASE template_city TEMPLATE {embedded.DATABASE} OWNER {roles.OWNER}")
        superuser.close()
        yield held
    shutil.rmtree(home)


@contextmanager
def fresh_settings(server: embedded.EmbeddedServer) -> Iterator[Settings]:
    """Settings with an empty home, and a fresh, migrated database of the session's server as their own server.

    A program started by a test gets the same with URBAN_REID_HOME and URBAN_REID_DATABASE_URL.
    """
    home, database = new_home(), f"test_{uuid4().hex[:12]}"
    superuser = server.connect("postgres", "postgres")
    superuser.autocommit = True
    with superuser.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} TEMPLATE template_city OWNER {roles.OWNER}")
        try:
            yield Settings(home=home, database_url=server.url(database))
        finally:
            cursor.execute(f"DROP DATABASE {database} WITH (FORCE)")
            superuser.close()
            shutil.rmtree(home)


@pytest.fixture
def settings(server: embedded.EmbeddedServer) -> Iterator[Settings]:
    with fresh_settings(server) as fresh:
        yield fresh


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings, "pytest") as opened:
        yield opened


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty data directory; whoever starts a server in it ends it."""
    folder = new_home()
    yield folder
    shutil.rmtree(folder)
