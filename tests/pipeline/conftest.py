"""What the tests of the database and of backups share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from pipeline.store import Store, embedded, roles
from pipeline.store.user_supplied import supplied_url
from schemas.settings import Settings
from tests.helpers.homes import new_home


@pytest.fixture(scope="module")
def used_home() -> Iterator[Path]:
    """A home whose server was created and is stopped."""
    home = new_home()
    Store.open(Settings(home=home, database_url=None)).close()
    yield home
    assert not embedded.running(home)
    shutil.rmtree(home)


@pytest.fixture
def supplied(server: embedded.EmbeddedServer) -> Iterator[Settings]:
    """A user-supplied server as an administrator leaves it: a login that owns an empty database with `vector`."""
    superuser = server.connect("postgres", "postgres")
    superuser.autocommit = True
    cursor = superuser.cursor()
    cursor.execute("CREATE ROLE operator LOGIN CREATEROLE PASSWORD 'p@ss:word/%'")
    cursor.execute("CREATE DATABASE supplied OWNER operator")
    inside = server.connect("postgres", "supplied")
    with inside, inside.cursor() as inner:
        inner.execute("CREATE EXTENSION vector")
    inside.close()
    host = supplied_url(Settings(database_url=server.url())).query["host"]
    address = f"postgresql://operator:{quote('p@ss:word/%', safe='')}@/supplied?host={host}&port=5432"
    yield Settings(home=Path("/proc/not-used"), database_url=address)
    cursor.execute("DROP DATABASE supplied WITH (FORCE)")
    for role in ("other_owner", "other_worker", "other_app", "operator"):
        cursor.execute(f"DROP ROLE IF EXISTS {role}")
    superuser.close()


@pytest.fixture
def granted(server: embedded.EmbeddedServer, supplied: Settings) -> Settings:
    """The same, once the administrator has granted our roles, which the session's server has already."""
    superuser = server.connect("postgres", "postgres")
    with superuser, superuser.cursor() as cursor:
        cursor.execute(f"GRANT {', '.join((roles.OWNER, *roles.PROGRAM))} TO operator")
    superuser.close()
    return supplied
