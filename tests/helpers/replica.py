"""A primary and its streaming replica, of the wheel's PostgreSQL."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from pipeline.store import embedded, roles, schema
from pipeline.store.embedded_process import connect, ensure_running, server_pid, stop_server
from pipeline.store.embedded_programs import account_of, run
from schemas.settings import Settings
from tests.helpers.homes import new_home, program_url, remove_home, stay_open
from tests.helpers.pool import eventually


@dataclass(frozen=True)
class Pair:
    """The settings name the primary; `replica_url` is the replica's address."""

    primary: Path
    replica: Path
    settings: Settings
    replica_url: str

    @property
    def both(self) -> Settings:
        """Settings whose address leads to whichever of the two is the primary."""
        url = make_url(str(self.settings.database_url))
        hosts = f"{url.query['host']},{make_url(self.replica_url).query['host']}"
        query = {"host": hosts, "port": "5432,5432", "target_session_attrs": "read-write"}
        return self.settings.model_copy(update={"database_url": url.set(query=query).render_as_string(False)})

    @property
    def reading(self) -> Settings:
        """Settings that read from the replica."""
        return self.settings.model_copy(update={"replica_url": self.replica_url, "replica_wait_s": 30.0})

    def on_replica(self, statement: str) -> Any:
        with closing(connect(self.replica, roles.SUPERUSER, "postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None

    def catch_up(self) -> None:
        """Waits until the replica has all that was committed."""
        with closing(connect(self.primary, roles.SUPERUSER, "postgres")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_lsn()::text")
            at = cursor.fetchone()[0]
        eventually(lambda: bool(self.on_replica(f"SELECT pg_last_wal_replay_lsn() >= '{at}'")))

    def cut(self) -> None:
        """From here on the replica receives nothing."""
        self.on_replica("ALTER SYSTEM SET primary_conninfo = ''")
        self.on_replica("SELECT pg_reload_conf()")
        eventually(lambda: self.on_replica("SELECT count(*) FROM pg_stat_wal_receiver") == 0)

    def promote(self) -> None:
        """The primary ends at once, as by a loss of power, and the replica takes its place."""
        pid = server_pid(self.primary / "postgres")
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: server_pid(self.primary / "postgres") is None)
        assert self.on_replica("SELECT pg_promote()")


@contextmanager
def streaming() -> Iterator[Pair]:
    """A migrated, open city without units, and its replica."""
    primary, replica, home = new_home(), new_home(), new_home()
    try:
        with embedded.hold(primary) as server:
            with closing(server.connect(roles.SUPERUSER, "postgres")) as superuser:
                superuser.autocommit = True
                with superuser.cursor() as cursor:
                    for name, value in {"wal_level": "replica", "max_wal_senders": "4", "fsync": "off"}.items():
                        cursor.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            data = primary / "postgres"
            rules = data / "pg_hba.conf"
            rules.write_text(f"local replication {roles.SUPERUSER} trust\n{rules.read_text()}")
            stop_server(primary)
            ensure_running(primary)
            schema.migrate(lambda: server.connect(roles.OWNER))
            stay_open(lambda: server.connect(roles.OWNER))
            address = program_url(server)
            account = account_of(primary)
            os.chown(replica, account.uid, account.gid)
            copy = ["-D", str(replica / "postgres"), "-h", str(data), "-p", "5432", "-U", roles.SUPERUSER]
            run(replica, account, "pg_basebackup", *copy, "-R", "-X", "stream", "-c", "fast", cwd=replica)
            for passwords in primary.glob("postgres*.json"):
                shutil.copy(passwords, replica)
            ensure_running(replica)
            url = make_url(address)
            there = url.set(query={"host": str(replica / "postgres"), "port": "5432"}).render_as_string(False)
            yield Pair(primary, replica, Settings(home=home, database_url=address), there)
    finally:
        stop_server(replica)
        for folder in (primary, replica, home):
            remove_home(folder)
