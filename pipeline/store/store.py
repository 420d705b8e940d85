"""The store: transactions on the city's database, as the role that may read and write rows and nothing else."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from typing import Any, Self
from uuid import UUID

import sqlalchemy
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, event

from pipeline.crops.crop_store import CropStore
from pipeline.crops.earlier_layout import is_earlier, move_pictures
from pipeline.store import embedded, roles, schema, user_supplied
from pipeline.store.connections import SEATS, Seats, patient
from pipeline.store.embedded_home import check_restored
from pipeline.store.errors import database_errors
from pipeline.store.kept_dumps import remove_old
from pipeline.store.session_file import session_token
from schemas.errors import StoreError
from schemas.settings import Settings

#: No query: after one, the isolation of a transaction can no longer be set.
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
            connect = partial(self._server.connect, roles.APP, application_name=name)
        else:
            address = user_supplied.supplied_url(settings)
            connect = partial(_connect_as_app, address, application_name=name)
        self.seats = Seats(SEATS)
        self.engine = _engine(patient(connect, schema.whereabouts(settings)[0]), self._clock)

    @classmethod
    def open(cls, settings: Settings, application: str = "urban-reid") -> Self:
        """Opens the database of `settings`; `application` is the name that other programs see.

        Embedded: creates, starts and migrates it as needed. User-supplied server: checks versions and revision. Raises
        HomeError, StoreError, StoreUnavailable.
        """
        check_restored(settings.home)
        store = cls(settings, application)
        try:
            with store.begin() as connection:
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

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction as urban_reid_app: committed at the end, rolled back by an exception.

        Raises StoreError for what the database refuses, StoreUnavailable for a lost or missing connection.
        """
        with self.seats.taken(), self.errors():
            with self._clock.running():
                connection = self.engine.connect()
            with connection, connection.begin() as transaction:
                yield connection
                with self._clock.running():
                    transaction.commit()

    def under(self, token: SecretStr | None) -> Self:
        """This store under another session; both share the hold on the database, which the first one ends."""
        other = copy(self)
        other.settings = self.settings.model_copy(update={"token": token or SecretStr("")})
        return other

    @contextmanager
    def signed_in(self, request: UUID | None = None) -> Iterator[Connection]:
        """One transaction for whoever is signed in: what it shows and writes is what `granted()` allows.

        The session is that of `Settings.token` or of the file that `urban-reid login` keeps. `request`: a search that
        was asked for and not answered, in a process without a session; then what its session allows. Errors: as
        `begin`.
        """
        token = "" if request else session_token(self.settings)
        with self.begin() as connection:
            connection.execute(_SESSION, {"token": token, "request": str(request or "")})
            yield connection

    @contextmanager
    def signing_in(self) -> Iterator[Connection]:
        """One transaction that reads and writes accounts and sessions. Errors: as `begin`."""
        with self.begin() as connection:
            yield connection

    def errors(self) -> AbstractContextManager[None]:
        """Turns the driver's errors into StoreError and StoreUnavailable, one line each."""
        return database_errors(*schema.whereabouts(self.settings))

    def close(self) -> None:
        """Releases the database; the last store of a home stops its server."""
        self.engine.dispose()
        if self._server is not None:
            self._server.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def url(settings: Settings) -> str:
    """The database's address for other programs such as psql, with its password: postgresql://..."""
    if settings.database_url is not None:
        address = user_supplied.supplied_url(settings)
        return address.set(drivername="postgresql").render_as_string(hide_password=False)
    with embedded.hold(settings.home) as server:
        return server.url()


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


def _connect_as_app(address: URL, **options: Any) -> Any:
    """A connection as urban_reid_app, where the address's user may become that, which nobody may before migrations."""
    connection = user_supplied.connect(address, **options)
    with connection.cursor() as cursor:
        if roles.may_become(cursor, roles.APP):
            cursor.execute(f"SET ROLE {roles.APP}")
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

    @event.listens_for(engine, "before_cursor_execute")
    def _before(connection: Connection, *_: Any) -> None:
        connection.info["started"] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def _after(connection: Connection, *_: Any) -> None:
        clock.waited(connection.info["started"])

    return engine
