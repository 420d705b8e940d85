"""Brings an embedded database of an earlier PostgreSQL to today's, by dump and restore.

HOME/postgres         the data, of the earlier version until the new ones are whole
HOME/backups          gets a dump of them, which is kept
HOME/postgres.next    a home of its own, in which the new data come to be; `whole` in it says that they are
HOME/postgres.before  the earlier data, from then until the new server has started

Killed anywhere, it begins anew with the earlier data or, once those are aside, puts the new ones in their place.
Everything here is called under `embedded_home.locked`.
"""

import logging
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pipeline.store.dump import Database, database_bytes, of_home, read_dump
from pipeline.store.embedded_home import BEFORE, NEXT, WHOLE, exists, prepare_home, unshared
from pipeline.store.embedded_process import DATABASE, ensure_running, stop_server
from pipeline.store.embedded_programs import MAJOR, Account, major_of
from pipeline.store.embedded_secrets import FILES, read_password, settle_passwords, write_passwords
from pipeline.store.kept_dumps import check_room, keep_dump
from schemas.errors import StoreError

_log = logging.getLogger(__name__)


def bring_to_major(home: Path, account: Account, create: Callable[[Path, Account], None]) -> None:
    """Upgrades the home's data if they are of an earlier major version; `create` makes an empty database in a home.

    Raises StoreError for data of a version that there are no programs for, while another program uses them, and for
    databases beside ours, which would be lost; HomeError without enough room. Then the earlier data are as they were.
    """
    _finish_swap(home)
    if not exists(home) or (before := major_of(home)) == MAJOR:
        return
    if not unshared(home):
        raise StoreError(
            f"the database in {home} is of PostgreSQL {before}, is to be brought to {MAJOR}, and is in use; "
            "end the programs that use it first"
        )
    following = home / NEXT
    for one in (home, following):
        stop_server(one)
    shutil.rmtree(following, ignore_errors=True)
    settle_passwords(home)
    try:
        ensure_running(home)
        _check_alone(home)
        old = of_home(home)
        why = f"before it goes from PostgreSQL {before} to {MAJOR}"
        check_room(home, 3 * database_bytes(old), f"the database is dumped, and restored, {why}")
        dump = keep_dump(home, old, f"postgresql{before}", why)
        following.mkdir(mode=0o700)
        prepare_home(following, account)
        create(following, account)
        settle_passwords(following)
        ensure_running(following)
        read_dump(dump, of_home(following))
        if (was := _count_rows(old)) != (now := _count_rows(of_home(following))):
            raise StoreError(f"the restored database has other rows: {sorted(was.items() ^ now.items())[:4]}")
    finally:
        for one in (home, following):
            stop_server(one)
    # Their passwords lie within the new data until those are in place, as those of any new database.
    write_passwords(following / "postgres", {role: read_password(following, role) for role in FILES})
    (following / WHOLE).touch()
    (home / "postgres").rename(home / BEFORE)
    (following / "postgres").rename(home / "postgres")
    _log.warning("the database is of PostgreSQL %s now, with every row; it was of %s", MAJOR, before)


def remove_earlier_major(home: Path) -> None:
    """Removes what an upgrade leaves, once the new server has started."""
    for left in (home / BEFORE, home / NEXT):
        if left.exists():
            shutil.rmtree(left)


def _finish_swap(home: Path) -> None:
    """Goes on where a killed upgrade left no data in their place."""
    following, data = home / NEXT, home / "postgres"
    if (following / WHOLE).exists() and not data.exists():
        (following / "postgres").rename(data)


def _check_alone(home: Path) -> None:
    with closing(of_home(home).connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname NOT IN (%s, 'postgres')", (DATABASE,)
        )
        others = [name for (name,) in cursor.fetchall()]
    if others:
        raise StoreError(
            f"the server in {home} has databases that are not ours, and would be lost: {', '.join(others)[:200]}; "
            "dump and drop them first"
        )


def _count_rows(of: Database) -> dict[str, int]:
    """By table, the partitioned ones as a whole."""
    with closing(of.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND NOT relispartition"
        )
        found = {}
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM public."{table}"')
            (found[table],) = cursor.fetchone()
        return found
