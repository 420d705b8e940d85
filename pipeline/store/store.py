"""The store: transactions on the city's database, each as one of the roles of the program."""

import math
import os
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from typing import Any, Self
from uuid import UUID

import sqlalchemy
from psycopg2.extensions import TRANSACTION_STATUS_INTRANS
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from pipeline.crops.crop_store import CropStore
from pipeline.crops.earlier_layout import is_earlier, move_pictures
from pipeline.store import embedded, roles, schema, user_supplied
from pipeline.store.connections import SEATS, Seats, patient
from pipeline.store.embedded_home import check_restored
from pipeline.store.errors import database_errors
from pipeline.store.kept_dumps import remove_old
from pipeline.store.session_file import session_token
from schemas.errors import StoreError, StoreUnavailable
from schemas.settings import Settings

#: No query: after one, the isolation of a transaction can no longer be set.
_KEY = sqlalchemy.text("SELECT search_key(:request)")
#: Of which life the server is: another one after a crash, or where a replica took over. There the number of a
#: transaction that was lost may be given to another one.
_LIFE = "concat(left(pg_walfile_name(pg_current_wal_lsn()), 8), ' ', (SELECT stats_reset FROM pg_stat_bgwriter))"
_TRANSACTION = sqlalchemy.text(
    "SELECT pg_current_xact_id_if_assigned()::text AS number, "
    f"CASE WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN {_LIFE} END AS life"
)
_STATUS = sqlalchemy.text(
    f"SELECT CASE WHEN {_LIFE} = :life THEN pg_xact_status(CAST(CAST(:number AS text) AS xid8)) ELSE 'unknown' END"
)
#: How long a database that was lost in a commit is waited for, and how often it is asked, seconds.
_BACK_WITHIN_S, _ASKED_EVERY_S = 30.0, 0.2
_SESSION = sqlalchemy.text("SET LOCAL urban_reid.session = :token; SET LOCAL urban_reid.request = :request")


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


class Store:
    """A hold on the database. Returned by `Store.open`, a context manager; safe for threads, not across a fork."""

    def __init__(self, settings: Settings, application: str) -> None:
        self.settings = settings
        self.looked_at_growth_s = -math.inf  # by the monotonic clock; see pipeline.store.statistics
        name = f"{application[:40]} (process {os.getpid()})"
        self._clock = Clock()
        self._server: embedded.EmbeddedServer | None = None
        if settings.database_url is None:
            self._server = embedded.hold(settings.home)
            self._connect = partial(self._server.connect, application_name=name)
        else:
            self._connect = partial(_become, user_supplied.supplied_url(settings), application_name=name)
        self.seats = Seats(SEATS)
        self._engines = {role: _engine(self._connecting(role), self._clock) for role in roles.PROGRAM}

    def _connecting(self, role: str) -> Callable[[], Any]:
        return patient(partial(self._connect, role), schema.whereabouts(self.settings)[0])

    @classmethod
    def open(cls, settings: Settings, application: str = "urban-reid") -> Self:
        """Opens the database of `settings`; `application` is the name that other programs see.

        Embedded: creates, starts and migrates it as needed. User-supplied server: checks versions and revision. Raises
        HomeError, StoreError, StoreUnavailable.
        """
        check_restored(settings.home)
        store = cls(settings, application)
        try:
            # urban_reid_app is the only role that every revision lets read which one it is.
            with store.errors(), schema.session(store._connecting(roles.APP)) as connection:
                if store._server is None:
                    schema.check_versions(connection)
                found = schema.current(connection)
            if found != schema.head():
                if store._server is None:
                    raise StoreError(
                        f"the database of URBAN_REID_DATABASE_URL has revision {found or 'none'} and this program "
                        f"needs {schema.head()}; run `urban-reid db upgrade`"
                    )
                schema.upgrade(settings)
            with store.begin():
                pass  # a connection stays open, by which others see who uses the server
            store._settle_crops()
            remove_old(settings.home)
        except BaseException:
            store.close()
            raise
        return store

    def _settle_crops(self) -> None:
        """Moves the pictures of an earlier version; a move that was cut short goes on at the next open."""
        crops = CropStore(self.settings)
        if is_earlier(crops):
            with self.begin() as connection:
                move_pictures(connection, crops)

    def listen(self, listener: Callable[[float, float], None]) -> None:
        """Calls `listener` for each wait for the database, with its start and end in seconds of time.perf_counter.

        Waits are connecting, statements, COPY and commits, in every thread.
        """
        self._clock.listener = listener

    @property
    def engine(self) -> Engine:
        """Connections as urban_reid_worker."""
        return self._engines[roles.WORKER]

    def begin(self) -> AbstractContextManager[Connection]:
        """One transaction as urban_reid_worker: committed at the end, rolled back by an exception.

        For what the program does alone. Raises StoreError for what the database refuses, StoreUnavailable for a lost or
        missing connection.
        """
        return self._transaction(roles.WORKER)

    @contextmanager
    def _transaction(self, role: str) -> Iterator[Connection]:
        with self.seats.taken(), self.errors():
            with self._clock.running():
                connection = self._engines[role].connect()
            with connection, connection.begin() as transaction:
                yield connection
                written = _written(connection)
                try:
                    with self._clock.running():
                        transaction.commit()
                except DBAPIError as error:
                    if written is None or not error.connection_invalidated or not self._is_committed(role, written):
                        raise

    def _is_committed(self, role: str, transaction: Mapping[str, str]) -> bool:
        """Whether a transaction was committed whose connection was lost while it was, so that nobody does it twice.

        False too where nobody can tell, as of a database that does not come back within _BACK_WITHIN_S.
        """
        until = time.monotonic() + _BACK_WITHIN_S
        while True:
            try:
                with self._engines[role].connect() as connection:
                    status = connection.scalar(_STATUS, transaction)
                if status != "in progress":
                    return bool(status == "committed")
            except (DBAPIError, StoreUnavailable):  # also of a replica that is not promoted yet
                if time.monotonic() > until:
                    return False
            time.sleep(_ASKED_EVERY_S)

    def under(self, token: SecretStr | None) -> Self:
        """This store under another session; both share the hold on the database, which the first one ends."""
        other = copy(self)
        other.settings = self.settings.model_copy(update={"token": token or SecretStr("")})
        return other

    @contextmanager
    def signed_in(self, request: UUID | None = None) -> Iterator[Connection]:
        """One transaction as urban_reid_app, for whoever is signed in: what it shows and writes `granted()` allows.

        The session is that of `Settings.token` or of the file that `urban-reid login` keeps. `request`: a search that
        was asked for and not answered, in a process without a session; then what its session allows. Errors: as
        `begin`.
        """
        token, key = "", None
        if request is None:
            token = session_token(self.settings)
        else:
            with self.begin() as connection:
                key = connection.scalar(_KEY, {"request": request})
        with self._transaction(roles.APP) as connection:
            connection.execute(_SESSION, {"token": token, "request": str(key or "")})
            yield connection

    def signing_in(self) -> AbstractContextManager[Connection]:
        """One transaction as urban_reid_signin, which reads and writes accounts and sessions. Errors: as `begin`."""
        return self._transaction(roles.SIGNIN)

    @contextmanager
    def owning(self) -> Iterator[Connection]:
        """One transaction as urban_reid_owner, who sees every row and column: to prove that something is nowhere.

        Raises HomeError where the owner's password is kept elsewhere; else as `begin`.
        """
        with self.errors(), schema.session(self._connecting(roles.OWNER)) as connection, connection.begin():
            yield connection

    def errors(self) -> AbstractContextManager[None]:
        """Turns the driver's errors into StoreError and StoreUnavailable, one line each."""
        return database_errors(*schema.whereabouts(self.settings))

    def close(self) -> None:
        """Releases the database; the last store of a home stops its server."""
        for engine in self._engines.values():
            engine.dispose()
        if self._server is not None:
            self._server.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _written(connection: Connection) -> Mapping[str, str] | None:
    """The number of a transaction that has written something, and the server's life; None for one that has not, or that
    has failed.
    """
    info = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
    if info.transaction_status != TRANSACTION_STATUS_INTRANS:
        return None
    found = connection.execute(_TRANSACTION).one()
    return None if found.number is None else {"number": found.number, "life": found.life}


def url(settings: Settings, role: str = roles.APP) -> str:
    """The database's address for other programs such as psql, with the password of `role`: postgresql://...

    A user-supplied server's address is returned as it is.
    """
    if settings.database_url is not None:
        address = user_supplied.supplied_url(settings)
        return address.set(drivername="postgresql").render_as_string(hide_password=False)
    with embedded.hold(settings.home) as server:
        return server.url(role=role)


def stop(settings: Settings) -> bool:
    """Stops the embedded server; False if none ran. Raises StoreError while it is in use, or if it is user-supplied."""
    if settings.database_url is not None:
        raise StoreError("URBAN_REID_DATABASE_URL names a user-supplied server, which urban-reid does not stop")
    return embedded.stop(settings.home)


def reset_passwords(settings: Settings) -> None:
    """Gives the roles of the embedded database new passwords, if the old ones are lost.

    Raises StoreError if there is no database, while it is in use, or if it is user-supplied.
    """
    if settings.database_url is not None:
        raise StoreError("URBAN_REID_DATABASE_URL names a user-supplied server, whose passwords are not ours to change")
    embedded.reset_passwords(settings.home)


def _become(address: URL, role: str, **options: Any) -> Any:
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


def _engine(connect: Callable[[], Any], clock: Clock) -> Engine:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://",
        creator=connect,
        pool_pre_ping=True,
        max_overflow=-1,  # bounded by the seats: a full pool could block threads that hold a lock
        hide_parameters=True,
        execution_options={"clock": clock},
    )

    ping = engine.dialect.do_ping
    engine.dialect.do_ping = lambda dbapi_connection: (  # type: ignore[method-assign]
        not _has_word(dbapi_connection) or ping(dbapi_connection)
    )

    @event.listens_for(engine, "before_cursor_execute")
    def _before(connection: Connection, *_: Any) -> None:
        connection.info["started"] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def _after(connection: Connection, *_: Any) -> None:
        clock.waited(connection.info["started"])

    return engine


def _has_word(connection: Any) -> bool:
    """Whether the server has sent something that nobody waits for, such as that it ends the connection.

    Only then is it asked whether it is still there, which saves a round trip for each transaction.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
