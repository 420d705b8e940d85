"""Data directories and databases for tests."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from flows.server import PrefectServer
from pipeline.store import embedded, embedded_programs, embedded_upgrade, roles
from pipeline.store.embedded_programs import account_of
from schemas.settings import Settings


def new_home() -> Path:
    """A folder that the database's user can reach, unlike pytest's; the caller removes it."""
    home = Path(tempfile.mkdtemp(prefix="urban-reid-test-"))
    home.chmod(0o711)
    return home


def remove_home(home: Path) -> None:
    """Ends the Prefect server that still runs for a data directory, if there is one, and removes the directory."""
    if (home / "prefect").is_dir():
        PrefectServer(Settings(home=home)).stop()
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


@contextmanager
def fresh_settings(server: embedded.EmbeddedServer) -> Iterator[Settings]:
    """Settings with an empty home and a fresh, migrated database of the session's server as a user-supplied server.

    A program started by a test gets the same through URBAN_REID_HOME and URBAN_REID_DATABASE_URL.
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
            remove_home(home)
