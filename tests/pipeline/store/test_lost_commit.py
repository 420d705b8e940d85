"""A connection that is lost while a transaction is committed: what was written is known, so nobody writes it twice."""

from typing import Any

import psycopg2
import pytest
import sqlalchemy.engine.default
from sqlalchemy import text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.errors import StoreUnavailable


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
