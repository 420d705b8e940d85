"""Engines: how connections are made and kept, as whom their transactions run, and how long they are waited for."""

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.pool import Pool

from pipeline.store import roles, user_supplied
from schemas.errors import StoreError


class Clock:
    """Tells `listener` of each wait for the database: its start and end in seconds of time.perf_counter."""

    def __init__(self) -> None:
        self.listener: Callable[[float, float], None] | None = None

    def waited(self, start: float) -> None:
        """Reports a wait that began at `start` and ends now."""
        if self.listener is not None:
            self.listener(start, time.perf_counter())

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited(start)


def become(address: URL, role: str, **options: Any) -> Any:
    """A connection as `role`; as the address's user where there is no such role, as before migrations.

    Raises StoreError if the address's user may not become it.
    """
    connection = user_supplied.connect(address, **options)
    with connection.cursor() as cursor:
        if roles.may_become(cursor, role):
            cursor.execute(f"SET ROLE {role}")
        elif roles.exists(cursor, role):
            user = connection.info.user
            connection.close()
            raise StoreError(
                f"the user {user} of URBAN_REID_DATABASE_URL may not act as {role}; run `urban-reid db upgrade`, which "
                "says what is needed"
            )
    connection.commit()
    return connection


def make_engine(
    connect: Callable[[], Any], clock: Clock, role: str | None = None, poolclass: type[Pool] | None = None
) -> Engine:
    """role: of each transaction, for connections of a pool, whose next transaction may be another client's.

    poolclass: unless given, connections are kept for the next transaction.
    """
    made = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        creator=connect,
        pool_pre_ping=True,
        hide_parameters=True,
        execution_options={"clock": clock},
        # Bounded by the seats: a full pool could block threads that hold a lock.
        **({"max_overflow": -1} if poolclass is None else {"poolclass": poolclass}),
    )
    if role is not None:
        _act_as(made, role)

    ping = made.dialect.do_ping
    made.dialect.do_ping = lambda dbapi_connection: (  # type: ignore[method-assign]
        not _has_word(dbapi_connection) or ping(dbapi_connection)
    )

    @event.listens_for(made, "before_cursor_execute")
    def _before(connection: Connection, *_: Any) -> None:
        connection.info["started"] = time.perf_counter()

    @event.listens_for(made, "after_cursor_execute")
    def _after(connection: Connection, *_: Any) -> None:
        clock.waited(connection.info["started"])

    return made


def _act_as(engine: Engine, role: str) -> None:
    """Each transaction begins as `role`, which ends with it, and so does what else a session would keep."""

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]
            raise AssertionError("without a transaction a statement through a pool has no role")
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}; SET LOCAL TIME ZONE 'UTC'")


def _has_word(connection: Any) -> bool:
    """Whether the server has sent something that nobody waits for, such as that it ends the connection.

    Only then is it asked whether it is still there, which saves a round trip for each transaction.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
