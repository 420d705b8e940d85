"""The store: transactions on the city's database, each as one of the roles of the program."""

import logging
import math
import os
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
from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from pipeline.crops.crop_store import CropStore
from pipeline.crops.earlier_layout import is_earlier, move_pictures
from pipeline.store import embedded, roles, schema, user_supplied
from pipeline.store.connections import SEATS, Seats, patient
from pipeline.store.embedded_home import check_restored
from pipeline.store.engines import Clock, become, make_engine
from pipeline.store.errors import database_errors
from pipeline.store.kept_dumps import remove_old
from pipeline.store.replica import LOG_TIMELINE, TIMELINE, Replica, ReplicaState, position_of
from pipeline.store.session_file import session_token
from schemas.errors import StoreError, StoreUnavailable
from schemas.settings import Settings

_log = logging.getLogger(__name__)

#: No query: after one, the isolation of a transaction can no longer be set.
_KEY = sqlalchemy.text("SELECT search_key(:request)")
#: Of which life the server is: another one after a crash, or where a replica took over. There the number of a
#: transaction that was lost may be given to another one.
_LIFE = f"concat({LOG_TIMELINE}, ' ', (SELECT stats_reset FROM pg_stat_bgwriter))"
_TRANSACTION = sqlalchemy.text(
    "SELECT pg_current_xact_id_if_assigned()::text AS number, "
    f"CASE WHEN pg_current_xact_id_if_assigned() IS NOT NULL THEN {_LIFE} END AS life"
)
_STATUS = sqlalchemy.text(
    f"SELECT CASE WHEN {_LIFE} = :life THEN pg_xact_status(CAST(CAST(:number AS text) AS xid8)) ELSE 'unknown' END"
)
#: How long a database that was lost in a commit is waited for, and how often it is asked, seconds.
_BACK_WITHIN_S, _ASKED_EVERY_S = 30.0, 0.2
_TIMELINE = sqlalchemy.text(f"SELECT {TIMELINE}")
_READ_ONLY = sqlalchemy.text("SET TRANSACTION READ ONLY")
_SERVER = sqlalchemy.text("SELECT current_database(), pg_postmaster_start_time()")
_SESSION = sqlalchemy.text("SET LOCAL urban_reid.session = :token; SET LOCAL urban_reid.request = :request")


class Store:
    """A hold on the database. Returned by `Store.open`, a context manager; safe for threads, not across a fork."""

    def __init__(self, settings: Settings, application: str) -> None:
        if settings.database_url is None and settings.replica_url is not None:
            raise StoreError("URBAN_REID_REPLICA_URL is set, and the embedded database has no replica")
        self.settings = settings
        self.looked_at_growth_s = -math.inf  # by the monotonic clock; see pipeline.store.statistics
        name = f"{application[:40]} (process {os.getpid()})"
        self._clock = Clock()
        self._server: embedded.EmbeddedServer | None = None
        if settings.database_url is None:
            self._server = embedded.hold(settings.home)
            self._connect = partial(self._server.connect, application_name=name)
        else:
            self._connect = partial(become, user_supplied.direct_url(settings), application_name=name)
        self.seats = Seats(SEATS)
        if settings.database_url is None or settings.database_direct_url is None:
            self._engines = {role: make_engine(self._connecting(role), self._clock) for role in roles.PROGRAM}
            #: Sessions as urban_reid_worker that keep a lock from one transaction to the next.
            self.sessions = self._engines[roles.WORKER]
        else:
            address = user_supplied.supplied_url(settings)
            through_pool = self._patient(partial(user_supplied.connect, address, pooled=True, application_name=name))
            self._engines = {role: make_engine(through_pool, self._clock, role) for role in roles.PROGRAM}
            self.sessions = make_engine(self._connecting(roles.WORKER), self._clock, poolclass=NullPool)
        self._replica = self._reader(name) if settings.replica_url is not None else None

    def _reader(self, name: str) -> Replica:
        address = user_supplied.replica_url(self.settings)
        connect = partial(user_supplied.connect, address, pooled=True, application_name=name)
        return Replica(lambda role: make_engine(connect, self._clock, role), self.settings.replica_wait_s)

    def _connecting(self, role: str) -> Callable[[], Any]:
        return self._patient(partial(self._connect, role))

    def _patient(self, connect: Callable[[], Any]) -> Callable[[], Any]:
        return patient(connect, schema.whereabouts(self.settings)[0])

    @classmethod
    def open(cls, settings: Settings, application: str = "urban-reid") -> Self:
        """Opens the database of `settings`; `application` is the name that other programs see.

        Embedded: creates, starts and migrates it as needed. User-supplied server: checks versions and revision. One
        that a newer program migrated is used if it lets a program as old as this one go on. Raises HomeError,
        StoreError, StoreUnavailable.
        """
        check_restored(settings.home)
        store = cls(settings, application)
        try:
            # urban_reid_app is the only role that every revision lets read which one it is.
            with store.errors(), schema.session(store._connecting(roles.APP)) as connection:
                if store._server is None:
                    schema.check_versions(connection)
                found = schema.current(connection)
                server = connection.execute(_SERVER).one()
            if found is not None and not schema.is_known(found):
                _log.warning(
                    "the database is of a newer program (revision %s), which lets this one (%s) go on; upgrade it soon",
                    found,
                    schema.head(),
                )
            elif found != schema.head():
                if store._server is None:
                    raise StoreError(
                        f"the database of URBAN_REID_DATABASE_URL has revision {found or 'none'} and this program "
                        f"needs {schema.head()}; run `urban-reid db upgrade`"
                    )
                schema.upgrade(settings)
            with store.begin() as connection:  # it stays open, by which others see who uses the server
                if settings.database_direct_url is not None and connection.execute(_SERVER).one() != server:
                    raise StoreError(
                        "URBAN_REID_DATABASE_URL and URBAN_REID_DATABASE_DIRECT_URL do not lead to one database of one "
                        "server; a lock of one would not be seen by the other"
                    )
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

    def begin(self, *, only_reads: bool = False) -> AbstractContextManager[Connection]:
        """One transaction as urban_reid_worker: committed at the end, rolled back by an exception.

        For what the program does alone. only_reads: it writes nothing, and may run on the replica. Raises StoreError
        for what the database refuses, StoreUnavailable for a lost or missing connection.
        """
        return self._reading(roles.WORKER) if only_reads else self._transaction(roles.WORKER)

    @contextmanager
    def _reading(self, role: str) -> Iterator[Connection]:
        """One transaction that writes nothing, on the replica or, where that is of no use, on the primary.

        The connection's execution option `instead` says why it is the primary's; empty without a replica.
        """
        with self.seats.taken(), self.errors():
            connection: Connection | str = ""
            if self._replica is not None:
                with self._clock.running():
                    connection = self._replica.connected(role, partial(self._position, role))
            if isinstance(connection, str):
                with self._transaction(role) as primary:
                    primary.execute(_READ_ONLY)
                    yield primary.execution_options(instead=connection)
                return
            assert self._replica is not None
            with connection, connection.begin():
                try:
                    connection.execute(_READ_ONLY)
                    yield connection
                except DBAPIError as error:  # such as one of rows that the primary has removed meanwhile
                    self._replica.rest("a read of it was ended")
                    raise StoreUnavailable(
                        f"the replica ended a read ({type(error.orig).__name__}); the next one goes to the primary"
                    ) from error

    def _position(self, role: str) -> Row[Any]:
        with self._engines[role].connect() as connection:
            return position_of(connection)

    def timeline(self) -> int:
        """The timeline of the database, a number that changes where a replica was promoted in its place.

        Commits from before may be missing then.
        """
        with self.begin() as connection:
            return int(connection.execute(_TIMELINE).scalar_one())

    def replica_state(self) -> ReplicaState | None:
        """How the replica stands; None where there is none."""
        if self._replica is None:
            return None
        with self.seats.taken(), self.errors():
            return self._replica.look(roles.WORKER, partial(self._position, roles.WORKER))

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
    def signed_in(self, request: UUID | None = None, *, only_reads: bool = False) -> Iterator[Connection]:
        """One transaction as urban_reid_app, for whoever is signed in: what it shows and writes `granted()` allows.

        The session is that of `Settings.token` or of the file that `urban-reid login` keeps. `request`: a search that
        was asked for and not answered, in a process without a session; then what its session allows. only_reads,
        errors: as `begin`.
        """
        token, key = "", None
        if request is None:
            token = session_token(self.settings)
        else:
            with self.begin() as connection:
                key = connection.scalar(_KEY, {"request": request})
        with self._reading(roles.APP) if only_reads else self._transaction(roles.APP) as connection:
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
        self.sessions.dispose()
        if self._replica is not None:
            self._replica.close()
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

    A user-supplied server's own address is returned as it is.
    """
    if settings.database_url is not None:
        address = user_supplied.direct_url(settings)
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
