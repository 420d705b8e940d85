"""scrub: has the disk forget what was deleted from the database.

PostgreSQL keeps deleted rows in its files until they are overwritten, its write-ahead log until those files are used
anew, and samples of columns in its statistics. This writes all of it anew, and Prefect's database too.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pipeline.erasure.files import prefect_database
from pipeline.store import embedded, roles
from pipeline.store.embedded_home import resolved
from schemas.errors import StoreError
from schemas.settings import Settings

#: What a user-supplied server's administrator runs for the same.
BY_HAND = (
    "ALTER SYSTEM SET wal_recycle = off; SELECT pg_reload_conf(); ANALYZE; VACUUM FULL; CHECKPOINT; "
    "SELECT pg_switch_wal(); CHECKPOINT; ALTER SYSTEM RESET wal_recycle; SELECT pg_reload_conf()"
)


@dataclass(frozen=True)
class Scrubbed:
    """Bytes of the database before and after."""

    before: int
    after: int


def scrub(settings: Settings) -> Scrubbed:
    """Writes the embedded database and Prefect's anew, each table locked while that is done.

    It needs free disk for the largest table, and waits for whoever reads one. Raises StoreError for a user-supplied
    server, whose superuser alone may do it.
    """
    if settings.database_url is not None:
        raise StoreError(f"the server of URBAN_REID_DATABASE_URL is not ours to scrub: its superuser runs {BY_HAND}")
    with embedded.hold(resolved(settings.home)) as server, closing(server.connect(roles.SUPERUSER)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            before = _bytes(cursor)
            cursor.execute("ALTER SYSTEM SET wal_recycle = off")
            try:
                cursor.execute("SELECT pg_reload_conf()")
                cursor.execute("ANALYZE")  # statistics hold samples of what was there
                cursor.execute("VACUUM (FULL)")
                cursor.execute("VACUUM (FULL) pg_catalog.pg_statistic")
                _renew_log(cursor)
            finally:
                cursor.execute("ALTER SYSTEM RESET wal_recycle")
                cursor.execute("SELECT pg_reload_conf()")
            after = _bytes(cursor)
    path = prefect_database(settings)
    if path.exists():
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Scrubbed(before, after)


def _bytes(cursor: Any) -> int:
    cursor.execute("SELECT pg_database_size(current_database())")
    return int(cursor.fetchone()[0])


def _renew_log(cursor: Any) -> None:
    """Goes through the log's files that were made ahead from earlier ones, and has those behind removed."""
    cursor.execute("CHECKPOINT")
    cursor.execute("SELECT count(*) FROM pg_ls_waldir()")
    for _ in range(int(cursor.fetchone()[0]) + 1):
        cursor.execute("SELECT pg_logical_emit_message(false, 'urban_reid', 'scrub')")
        cursor.execute("SELECT pg_switch_wal()")
    cursor.execute("CHECKPOINT")
    cursor.execute("CHECKPOINT")
