"""A connection that is lost while a transaction is committed: what was written is known, so nobody writes it twice."""

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy.engine.default
from sqlalchemy import text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store, embedded, roles
from schemas.errors import StoreUnavailable
from schemas.settings import Settings
from tests.helpers.homes import copied_home


@pytest.mark.parametrize("reached", [True, False], ids=["the server committed", "the server did not"])
def test_a_commit_whose_answer_is_lost_is_asked_after(
    store: Store, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    real: Any = sqlalchemy.engine.default.DefaultDialect.do_commit
    losing = [True]

    def lose(self: Any, connection: Any) -> None:
        if not losing:
            real(self, connection)
            return
        losing.clear()
        if reached:
            real(self, connection)
        connection.close()  # of the driver: the server rolls back what it did not commit
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    def write() -> None:
        with store.begin() as connection:
            audit(connection, "anna", Action.PEOPLE_SHOW, unit="d1", details={})
            monkeypatch.setattr(sqlalchemy.engine.default.DefaultDialect, "do_commit", lose)

    if reached:
        write()
    else:
        with pytest.raises(StoreUnavailable, match="server closed the connection"):
            write()
    with store.owning() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit WHERE actor = 'anna'")) == int(reached)


def test_a_transaction_that_only_reads_may_lose_its_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_: Any, connection: Any) -> None:
        connection.close()
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    with pytest.raises(StoreUnavailable), store.begin() as connection:
        connection.execute(text("SELECT 1"))
        monkeypatch.setattr(sqlalchemy.engine.default.DefaultDialect, "do_commit", lose)


def test_what_a_crash_has_lost_is_not_taken_for_what_was_written_after_it(
    used_home: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres counts transactions by what reached the disk: after a crash another one may get the number of a lost."""
    real: Any = sqlalchemy.engine.default.DefaultDialect.do_commit
    crashing = copied_home(used_home, home / "crashing")
    with (crashing / "postgres" / "postgresql.conf").open("a") as file:
        file.write("wal_writer_delay = 10s\n")  # what is not committed does not reach the disk by chance

    def crash(self: Any, connection: Any) -> None:
        monkeypatch.setattr(sqlalchemy.engine.default.DefaultDialect, "do_commit", real)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text::bigint")
            (lost,) = cursor.fetchone()
        server = int((crashing / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(server, signal.SIGQUIT)
        while Path(f"/proc/{server}").exists():
            pass
        with embedded.hold(crashing) as held, closing(held.connect(roles.OWNER)) as other:
            other.autocommit = True
            with other.cursor() as cursor:
                number = 0
                while number < lost:  # others go on, one of them under the lost number
                    cursor.execute("SELECT pg_current_xact_id()::text::bigint")
                    (number,) = cursor.fetchone()
        real(self, connection)

    with Store.open(Settings(home=crashing, database_url=None)) as store:
        with pytest.raises(StoreUnavailable), store.begin() as connection:
            audit(connection, "anna", Action.PEOPLE_SHOW, unit="d1", details={})
            monkeypatch.setattr(sqlalchemy.engine.default.DefaultDialect, "do_commit", crash)
        with store.owning() as connection:
            assert connection.scalar(text("SELECT count(*) FROM audit WHERE actor = 'anna'")) == 0
