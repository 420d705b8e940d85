"""What a city on several hosts needs, each on a host of its own: PostgreSQL and its replica, Prefect, an object store.

The PostgreSQL of the package is built without TLS, so addresses say sslmode=disable.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg2

from pipeline.store import roles, upgrade
from pipeline.store.embedded_programs import Account, _folder, account_of, run
from schemas.settings import Settings
from tests.helpers.hosts import Host

_PATIENCE_S = 240.0
_PORT, _PREFECT_PORT, _STORE_PORT = 5432, 4200, 5000
_CONFIGURATION = """
listen_addresses = '*'
unix_socket_directories = ''
max_connections = 100
shared_buffers = '64MB'
jit = off
io_method = sync
max_parallel_workers_per_gather = 0
timezone = 'UTC'
wal_level = replica
hot_standby = on
# A replica that is off the network is known to be so before the tests' patience ends.
wal_sender_timeout = '10s'
wal_receiver_timeout = '10s'
"""


def waited_for(done: Callable[[], Any], what: str, process: "subprocess.Popen[str] | None" = None) -> Any:
    """The first true value of `done`, asked again and again."""
    until = time.monotonic() + _PATIENCE_S
    while not (found := done()):
        assert process is None or process.poll() is None, f"{what}: ended with {process and process.returncode}"
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


class Postgres:
    """A server on a host, its data in a folder. Made by `new` or, as a copy that may follow it, by `copy_of`."""

    def __init__(self, host: Host, folder: Path, passwords: dict[str, str]) -> None:
        self.host, self._folder, self._passwords = host, folder, passwords
        self.account: Account = account_of(folder)
        self.process: subprocess.Popen[str] | None = None

    @classmethod
    def new(cls, host: Host, folder: Path) -> "Postgres":
        """Initializes a server and starts it. `folder` exists, is empty, and the server's user may pass through."""
        made = cls(host, folder, {roles.SUPERUSER: secrets.token_hex(16), "program": secrets.token_hex(16)})
        made._make_folder()
        password = folder / "password"
        password.touch(0o600)
        password.write_text(made._passwords[roles.SUPERUSER])
        os.chown(password, made.account.uid, made.account.gid)
        options = ("--username", roles.SUPERUSER, "--pwfile", str(password), "--auth", "scram-sha-256")
        data = folder / "postgres"
        run(folder, made.account, "initdb", "-D", str(data), *options, "-E", "UTF8", "--locale", "C.UTF-8", cwd=data)
        password.unlink()
        with (data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all samenet scram-sha-256\nhost replication all samenet scram-sha-256\n")
        made.start()
        with made.superuser() as cursor:
            cursor.execute("CREATE ROLE program LOGIN NOINHERIT PASSWORD %s", (made._passwords["program"],))
        return made

    def copy_of(self, host: Host, folder: Path, *, follows: bool) -> "Postgres":
        """Starts a copy of this server on another host: one that goes its own way, or one that follows this one."""
        made = Postgres(host, folder, self._passwords)
        made._make_folder()
        backup = [str(_folder(folder, made.account) / "pg_basebackup"), "-D", str(folder / "postgres")]
        source = ["-h", self.host.address, "-U", roles.SUPERUSER, "--checkpoint", "fast", "--no-password"]
        secret = {"PATH": os.defpath, "PGPASSWORD": self._passwords[roles.SUPERUSER], "PGAPPNAME": host.name}
        process = host.start(
            *backup, *source, *(("--write-recovery-conf",) if follows else ()), env=secret, account=made.account
        )
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        made.start()
        return made

    def _make_folder(self) -> None:
        data = self._folder / "postgres"
        data.mkdir(mode=0o700)
        os.chown(data, self.account.uid, self.account.gid)

    def start(self) -> None:
        program, data = _folder(self._folder, self.account) / "postgres", self._folder / "postgres"
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        log = self._folder / "postgres.log"
        self.process = self.host.start(
            str(program), "-D", str(data), env=environment, cwd=data, account=self.account, log=log
        )
        waited_for(self._answers, f"PostgreSQL on {self.host.name}, see {log}", self.process)

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def connect(self, database: str) -> Any:
        """A connection of the superuser, from the server's own host."""
        with self.host.entered():
            found = psycopg2.connect(
                host=self.host.address,
                port=_PORT,
                user=roles.SUPERUSER,
                password=self._passwords[roles.SUPERUSER],
                dbname=database,
                sslmode="disable",
            )
        found.autocommit = True
        return found

    def superuser(self, database: str = "postgres") -> "_Cursor":
        return _Cursor(lambda: self.connect(database))

    def scalar(self, sql: str, database: str = "postgres") -> Any:
        with self.superuser(database) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def url(self, database: str, *others: "Postgres", user: str = "program", at: str | None = None) -> str:
        """The address for the program; `others`: where the database may be too; `at`: by another address."""
        where = ",".join([at or self.host.address, *(other.host.address for other in others)])
        options = "sslmode=disable" + ("&target_session_attrs=read-write&connect_timeout=3" if others else "")
        return f"postgresql://{user}:{self._passwords[user]}@{where}/{database}?{options}"

    def make_city(self, home: Path) -> None:
        """Makes the database `city`, with this program's tables and for its roles; `home` is a data directory."""
        with self.superuser() as cursor:
            cursor.execute("CREATE DATABASE city")
        with self.host.entered():
            upgrade(Settings(home=home, database_url=self.url("city", user=roles.SUPERUSER)))
        with self.superuser() as cursor:
            cursor.execute(f"GRANT {', '.join((roles.OWNER, *roles.PROGRAM))} TO program")

    def wait_for_copy(self, copy: "Postgres") -> None:
        """From now on a commit is answered when the copy has it too."""
        with self.superuser() as cursor:
            cursor.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            cursor.execute("SELECT pg_reload_conf()")
        waited_for(
            lambda: self.scalar("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"),
            f"{copy.host.name} to follow {self.host.name}",
        )

    def promote(self) -> None:
        """Makes a copy the server that takes writes; returns when it does."""
        assert self.scalar("SELECT pg_promote(true, 60)") is True


class _Cursor:
    """A connection for one block, and its cursor."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    def __enter__(self) -> Any:
        self._connection = self._connect()
        return self._connection.cursor()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class Prefect:
    """A Prefect server on a host, which asks for a secret."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self._folder, self.secret = host, folder, f"urban-reid:{secrets.token_hex(16)}"
        self.url = f"http://{host.address}:{_PREFECT_PORT}/api"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self._environment = inherited | {
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_API_AUTH_STRING": self.secret,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "*",
        }
        self.start()

    def start(self) -> None:
        address = ("--host", self.host.address, "--port", str(_PREFECT_PORT), "--no-ui")
        log = self._folder / "server.log"
        command = (sys.executable, "-P", "-m", "prefect", "server", "start", *address)
        process = self.host.start(*command, env=self._environment, cwd=self._folder, log=log)
        waited_for(lambda: _answers(self.host, f"{self.url}/health"), f"Prefect, see {log}", process)

    def client_environment(self) -> dict[str, str]:
        return {"URBAN_REID_PREFECT_URL": self.url, "PREFECT_API_AUTH_STRING": self.secret}


class Objects:
    """An object store on a host: moto's server, which speaks S3. What it holds lies in its memory."""

    BUCKET = "city"

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.url = host, f"http://{host.address}:{_STORE_PORT}"
        log = folder / "objects.log"
        command = (sys.executable, "-P", "-m", "moto.server", "-H", host.address, "-p", str(_STORE_PORT))
        process = host.start(*command, env=dict(os.environ), cwd=folder, log=log)
        waited_for(lambda: _answers(host, f"{self.url}/moto-api/"), f"the object store, see {log}", process)
        with host.entered():
            made = httpx.put(f"{self.url}/{self.BUCKET}", headers=_signed(), trust_env=False)
        assert made.status_code == 200, made.text

    def client_environment(self) -> dict[str, str]:
        return {
            "URBAN_REID_PICTURES_URL": f"s3://{self.BUCKET}/pictures",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "*",
        }


def _signed() -> dict[str, str]:
    """By its header moto knows a request of S3; it checks no signature."""
    return {"Authorization": "AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/s3/aws4_request"}


def _answers(host: Host, url: str) -> bool:
    try:
        with host.entered():
            return httpx.get(url, trust_env=False, timeout=5).status_code < 500
    except httpx.TransportError:
        return False
