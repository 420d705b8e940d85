"""The embedded server's process: starting it, reaching it through its socket, stopping it.

All functions but `connect` and `answers` are called under `embedded_home.locked`.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from pipeline.store import roles
from pipeline.store.embedded_programs import Account, account_of, start
from pipeline.store.embedded_secrets import SocketFolder, lost_password, read_password, read_state, write_state
from pipeline.store.errors import has_no_slot
from schemas.errors import HomeError, StoreError

PORT = 5432
DATABASE = "urban_reid"
#: Longest wait for a server that lives but does not answer yet, or does not end yet: it may be reading or writing GBs.
_PATIENCE_S = 300.0
_POLL_S = 0.05
_SIGNAL_AGAIN_S = 1.0
#: The address of a Unix socket holds 107 bytes, including the socket's own name.
_LONGEST_SOCKET_FOLDER = 107 - len(f"/.s.PGSQL.{PORT}")
_environment = threading.Lock()


def connect(home: Path, role: str, database: str, **options: Any) -> Any:
    """A psycopg2 connection as `role`. Raises HomeError if the server does not know our password."""
    try:
        return _connect(home, role, database, password=read_password(home, role), **options)
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise lost_password(home, role, "is not of this database") from None
        raise


def _connect(home: Path, role: str, database: str, **options: Any) -> Any:
    where = {"host": str(socket_folder(home)), "port": PORT, "dbname": database, "user": role, "connect_timeout": 10}
    with _no_libpq_variables():
        return psycopg2.connect(**where | options)


@contextmanager
def _no_libpq_variables() -> Iterator[None]:
    """Hides the environment's PG... variables, such as PGPORT or PGSERVICE, which libpq reads at every connection.

    Some of them have no parameter that could override them, and an inherited one may lead to another server.
    """
    with _environment:
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
        try:
            yield
        finally:
            os.environ.update(hidden)


def answers(home: Path) -> bool:
    """Whether the home's server runs and takes connections, which it does not while it starts or ends.

    Asks without a password, which a server that takes connections wants: there need not be a role or a database yet.
    """
    if server_pid(home / "postgres") is None:
        return False
    try:
        _connect(home, roles.APP, "postgres", require_auth="none").close()
    except psycopg2.OperationalError as error:
        return "server requested SASL authentication" in str(error) or has_no_slot(error)
    return True


def ensure_running(home: Path) -> None:
    """Starts the server unless it answers. Raises StoreError, after ending it, if it does not answer."""
    if answers(home):
        return
    account, data = account_of(home), home / "postgres"
    log = data / "server.log"
    pid = server_pid(data)
    if pid is not None and _comes_up(home, pid):  # one that is still starting; or it was ending
        return
    said_before = log.stat().st_size if log.exists() else 0
    folder = _make_socket_folder(home, account)
    # Postgres itself refuses to start with a damaged file of these, or if another program has the process id by now.
    for left in (data / "postmaster.pid", folder / f".s.PGSQL.{PORT}.lock"):
        left.unlink(missing_ok=True)
    # Relative to the data, in whose path a comma or a quote would need escaping.
    where = "." if folder == data else '"{}"'.format(str(folder).replace('"', '""'))
    pid = start(home, account, "-D", str(data), "-k", where, cwd=data, log=log)
    try:
        if not _comes_up(home, pid):
            raise StoreError(f"the database in {data} does not start: {_complaint(log, said_before)}; see {log}")
    except BaseException:
        _end(pid, signal.SIGQUIT, data)
        raise


def _comes_up(home: Path, pid: int) -> bool:
    """Waits until the server answers, or False until its process ends. Raises StoreError if it does neither."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if answers(home):
            return True
        if not _lives(pid):
            return False
        time.sleep(_POLL_S)
    data = home / "postgres"
    raise StoreError(f"the database in {data} does not answer for {_PATIENCE_S:.0f} s; see {data / 'server.log'}")


def stop_server(home: Path) -> None:
    """Stops the home's server, if one runs."""
    pid = server_pid(home / "postgres")
    if pid is not None:
        _end(pid, signal.SIGINT, home / "postgres")


def server_pid(data: Path) -> int | None:
    """Process id of the server that runs on `data`, by its pid file.

    None if that file is missing or damaged (then a running server ends by itself within a minute), or was left by a
    dead server, even if its number is that of another program now.
    """
    try:
        pid = int((data / "postmaster.pid").read_text(errors="replace").split(maxsplit=1)[0])
        process = psutil.Process(pid)
        if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
            return None
        if process.uids().effective != data.stat().st_uid:  # Postgres serves data of its own user alone
            return None
        return pid if Path(process.cwd()) == data.resolve() else None
    except psutil.AccessDenied:  # another user's process may hide its folder from us
        return pid
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        return None


def socket_folder(home: Path) -> Path:
    """The folder of the server's socket: the data's own, or the one recorded for this home."""
    recorded = read_state(home).socket
    return Path(recorded.folder) if recorded and recorded.home == str(home) else home / "postgres"


def _make_socket_folder(home: Path, account: Account) -> Path:
    """The data's own folder or, if libpq cannot use its path, a closed folder below the temporary one."""
    folder = socket_folder(home)
    if folder != home / "postgres":
        if folder.is_dir() and folder.lstat().st_uid == account.uid:
            return folder
    elif _is_address(folder):
        return folder
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-"))
    if not _is_address(folder):
        folder.rmdir()
        raise HomeError(
            f"the path of {home} is too long or holds a comma, and so is that of the temporary folder {folder.parent}; "
            "set URBAN_REID_HOME or TMPDIR to another path"
        )
    if account.is_other:
        shutil.chown(folder, account.uid, account.gid)
    state = read_state(home)
    write_state(home, state.model_copy(update={"socket": SocketFolder(home=str(home), folder=str(folder))}))
    return folder


def _is_address(folder: Path) -> bool:
    """Whether libpq takes the path for one folder: it reads a comma as the end of a host's name."""
    return len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER and "," not in str(folder)


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(pid: int, how: signal.Signals, data: Path) -> None:
    """Sends the signal, and again, until the process is gone: in its first moments a server still ignores some."""
    until = time.monotonic() + _PATIENCE_S
    again = time.monotonic()
    while _lives(pid):
        if time.monotonic() > until:
            raise StoreError(f"the database in {data} does not stop; see {data / 'server.log'}")
        if time.monotonic() >= again:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            again += _SIGNAL_AGAIN_S
        time.sleep(_POLL_S)


def _complaint(log: Path, said_before: int) -> str:
    """The line of the log, behind its first bytes, that says why the server did not start."""
    try:
        lines = log.read_bytes()[said_before:].decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return ([line for line in lines if "FATAL" in line or "PANIC" in line] or lines or ["it says nothing"])[-1]
