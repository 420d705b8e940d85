"""PgBouncer with transaction pooling in front of the session's server. Tests that use it skip where it is missing."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import make_url

from pipeline.store.embedded_programs import Account
from schemas.settings import Settings
from tests.helpers.homes import new_home


@contextmanager
def pooled(settings: Settings, size: int) -> Iterator[Settings]:
    """The settings of a fixture through a pool of `size` connections to the server. It runs as the server's user."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (.ci/run says how)")
    assert settings.database_url is not None
    direct = make_url(settings.database_url)
    owner = Path(str(direct.query["host"])).stat()
    account = Account(owner.st_uid, owner.st_gid)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = new_home()
    password = str(direct.password).replace('"', '""')
    (folder / "users.txt").write_text(f'"{direct.username}" "{password}"\n')
    (folder / "pool.ini").write_text(
        f"[databases]\n* = host={direct.query['host']} port={direct.query.get('port', 5432)}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {folder}/users.txt\npool_mode = transaction\n"
        f"default_pool_size = {size}\nmax_client_conn = 200\nadmin_users = {direct.username}\n"
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.uid, account.gid)
    user = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.is_other else {}
    log = (folder / "log").open("wb")
    with log, subprocess.Popen([program, folder / "pool.ini"], stdout=log, stderr=log, **user) as process:  # type: ignore[call-overload]
        try:
            address = direct.set(host="127.0.0.1", port=port, query={})
            eventually(lambda: _answers(port) or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            through = address.render_as_string(hide_password=False)
            yield settings.model_copy(update={"database_url": through, "database_direct_url": settings.database_url})
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder)


def eventually(is_so: Callable[[], bool]) -> None:
    """Waits until it is."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _answers(port: int) -> bool:
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def connections(settings: Settings) -> list[tuple[str, str]]:
    """(role, name of the program) of each client of the settings' database, as its server lists them."""
    assert settings.database_direct_url is not None
    with closing(psycopg2.connect(settings.database_direct_url)) as one, one.cursor() as cursor:
        cursor.execute(
            "SELECT usename, application_name FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return list(cursor.fetchall())
