"""Migrates the database to the revision that this program needs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, text

import migrations
from pipeline.store import embedded, roles, user_supplied
from pipeline.store.dump import of_home
from pipeline.store.embedded_home import check_restored, exists, resolved
from pipeline.store.errors import database_errors
from pipeline.store.kept_dumps import keep_dump
from schemas.errors import StoreError
from schemas.settings import Settings

_log = logging.getLogger(__name__)

_OLDEST_SERVER = 150_000
_OLDEST_VECTOR = (0, 8, 4)


def upgrade(settings: Settings) -> tuple[str | None, str | None]:
    """Migrates to the newest revision, and returns (the one before, the one now).

    Embedded: creates the server first if there is none, and dumps a database before it changes it. User-supplied
    server: the address's user must be allowed to create our roles, two of which see past row-level security, or be a
    member of all of them; and to create the extension `vector`, unless it is there. Its backups are its operator's.
    """
    check_restored(settings.home)
    with database_errors(*whereabouts(settings)):
        if settings.database_url is None:
            with embedded.hold(settings.home) as server:
                return migrate(lambda: server.connect(roles.OWNER), before=_keep_dump(settings))
        url = user_supplied.direct_url(settings)
        with session(lambda: user_supplied.connect(url)) as connection:
            prepare_supplied(connection)
        return migrate(lambda: user_supplied.connect(url), before=_say_no_dump)


def _keep_dump(settings: Settings) -> Callable[[str], None]:
    def keep(revision: str) -> None:
        home = resolved(settings.home)
        keep_dump(home, of_home(home), revision, f"before its migration from revision {revision} to {head()}")

    return keep


def _say_no_dump(revision: str) -> None:
    _log.warning(
        "the database of URBAN_REID_DATABASE_URL goes from revision %s to %s, in one transaction; no dump precedes it, "
        "because a user-supplied server's backups are its operator's",
        revision,
        head(),
    )


def revision(settings: Settings) -> tuple[str | None, str]:
    """(the database's revision, None if it has none yet; the newest revision that this program knows)."""
    with database_errors(*whereabouts(settings)):
        if settings.database_url is not None:
            url = user_supplied.direct_url(settings)
            with session(lambda: user_supplied.connect(url)) as connection:
                with closing(connection.connection.cursor()) as cursor:
                    if roles.may_become(cursor, roles.APP):
                        cursor.execute(f"SET ROLE {roles.APP}")
                return current(connection), head()
        if not exists(settings.home):
            return None, head()
        with embedded.hold(settings.home) as server, session(lambda: server.connect(roles.APP)) as connection:
            return current(connection), head()


def whereabouts(settings: Settings) -> tuple[str, str]:
    """For messages: (the database and where it is, what to do if it does not answer). Never shows a password."""
    if settings.database_url is None:
        return f"the database in {settings.home}", f"see {settings.home / 'postgres' / 'server.log'}"
    address = user_supplied.supplied_url(settings).render_as_string(hide_password=True)
    return f"the database at {address}", "see that it runs and that URBAN_REID_DATABASE_URL is right"


@cache
def head() -> str:
    """The newest revision that this program knows."""
    found = ScriptDirectory.from_config(_alembic()).get_current_head()
    assert found is not None
    return found


@cache
def revisions() -> tuple[str, ...]:
    """All revisions that this program knows, the oldest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions())[::-1]


def current(connection: Connection) -> str | None:
    """The revision of the database behind `connection`.

    Raises StoreError if it is newer than this program, and says that programs as old as this one may not use it.
    """
    if connection.scalar(text("SELECT to_regclass('public.alembic_version')")) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM public.alembic_version"))
    if found is not None and not is_known(found) and not _may_use(connection):
        check_known(found, "the database")
    return found


def is_known(revision: str) -> bool:
    """Whether this program has the migration to that revision; a newer program's it has not."""
    return revision in revisions()


def check_known(revision: str, of: str) -> None:
    """Raises StoreError if this program has no such revision; `of`: what has it."""
    if not is_known(revision):
        raise StoreError(f"{of} has revision {revision}, which this program does not know; use a newer program")


def _may_use(connection: Connection) -> bool:
    """Whether a database of a newer program lets this one go on: docs/decisions/expand-and-contract.md."""
    if connection.scalar(text("SELECT to_regprocedure('public.oldest_program()')")) is None:
        return False
    return is_known(connection.scalar(text("SELECT public.oldest_program()")))


def migrate(
    connect: Callable[[], Any],
    direction: Callable[[Config, str], None] = command.upgrade,
    target: str = "head",
    before: Callable[[str], None] = lambda _: None,
) -> tuple[str | None, str | None]:
    """Runs the migrations as urban_reid_owner in one transaction, one process at a time.

    `direction` is Alembic's upgrade or downgrade; `connect` returns a psycopg2 connection whose user may become the
    owner; `before` is called with the revision of a database that is going to be migrated. Returns the revisions before
    and after, None for an empty database.
    """
    with session(connect) as connection, connection.begin():
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('urban_reid migration', 0))"))
        connection.execute(text(f"SET LOCAL ROLE {roles.OWNER}"))
        found = current(connection)
        if found is not None:
            check_known(found, "the database")
        if found not in (None, head() if target == "head" else target):
            before(found)
        configuration = _alembic()
        configuration.attributes["connection"] = connection
        direction(configuration, target)
        return found, current(connection)


def check_versions(connection: Connection) -> None:
    """Raises StoreError if the server or its extension `vector` is too old or missing."""
    server: str = connection.scalar(text("SHOW server_version"))
    if int(connection.scalar(text("SHOW server_version_num"))) < _OLDEST_SERVER:
        raise StoreError(f"the database server is PostgreSQL {server}; 15 or later is needed")
    vector: str | None = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    if vector is None:
        raise StoreError("the database has no extension `vector`; a superuser must run CREATE EXTENSION vector in it")
    if tuple(int(part) for part in vector.split(".")) < _OLDEST_VECTOR:
        raise StoreError(f"the database has pgvector {vector}; 0.8.4 or later is needed: ALTER EXTENSION vector UPDATE")


def prepare_supplied(connection: Connection) -> None:
    """Creates extension, roles and rights as the embedded server's bootstrap does, with the address's user's rights.

    Commits what that user may do. Raises StoreError with the statements that a superuser has to run once.
    """
    with connection.begin():
        if connection.scalar(text("SELECT 1 FROM pg_extension WHERE extname = 'vector'")) is None:
            connection.execute(text("CREATE EXTENSION vector"))
        check_versions(connection)
        with closing(connection.connection.cursor()) as cursor:
            refused = roles.prepare(cursor)
    if refused:
        raise StoreError(
            "the user of URBAN_REID_DATABASE_URL may not give the program's roles the rights that they need; "
            f"let a superuser run once: {'; '.join(refused)}; then run the command again"
        )
    with connection.begin(), closing(connection.connection.cursor()) as cursor:
        cursor.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", (roles.OWNER,))
        if cursor.fetchone() != (True,):
            cursor.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {roles.OWNER}")


@contextmanager
def session(connect: Callable[[], Any]) -> Iterator[Connection]:
    """One connection, closed at the end of the block."""
    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _alembic() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    configuration.set_main_option("path_separator", "os")
    return configuration
