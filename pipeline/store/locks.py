"""Locks that keep each unit to one process at a time: session advisory locks, which end with their process.

And one for all crops, which ends with its transaction.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from zoneinfo import ZoneInfo

from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from pipeline.store.errors import is_duplicate
from pipeline.store.store import Store
from schemas.errors import StoreConflict, StoreError, StoreUnavailable

#: Length of one wait, in milliseconds, after which we look again who holds the lock.
_SLICE_MS = 2_000
#: pg_locks shows an advisory lock's 64 bits as two halves.
_HOLDER = text("""
    SELECT a.application_name, a.state_change, (SELECT timezone FROM city)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(:unit, 0)
""")
_HOLDS = text(
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = :pid "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)
_CROPS = "hashtextextended('urban_reid crops', 0)"
#: The session of a process that stands still with a lock of crops, such as one that is suspended, is ended after so
#: long, seconds: nobody could take crops in. Whoever shares it writes some hundred pictures between two statements.
SHARED_IDLE_S, LOCKED_IDLE_S = 600, 120


def idle_at_most(seconds: int) -> str:
    """SQL that has the server end this session if its transaction stands still for so long; its locks go with it."""
    return f"SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'"


def share_crops(connection: Connection) -> None:
    """Until the transaction ends, no batch is undone, and no picture is removed from the crop store."""
    connection.execute(text(f"{idle_at_most(SHARED_IDLE_S)}; SELECT pg_advisory_xact_lock_shared({_CROPS})"))


def lock_crops(connection: Connection) -> None:
    """Until the transaction ends, nothing is taken in. Waits for the transactions that take in crops now."""
    connection.execute(text(f"{idle_at_most(LOCKED_IDLE_S)}; SELECT pg_advisory_xact_lock({_CROPS})"))


@contextmanager
def unit_lock(store: Store, unit: str, on_wait: Callable[[str], None] | None = None) -> Iterator[Callable[[], None]]:
    """Holds the lock of `unit`, on a connection of its own, after waiting until no other process holds it.

    Yields a function that raises StoreUnavailable where the lock was lost with its connection.

    `on_wait` is called once for each process waited for, with a line such as `waiting for d1/s1: urban-reid resolve
    (process 4711) has held it since 2026-01-01 09:00:00 CET`, in the city's time zone. A user-supplied server tells no
    time where its login is none of our roles.

    Raises StoreUnavailable if the connection is lost, and where the block finds that somebody else wrote what it
    writes, or changed what it read: who was cut off or suspended for long has lost the lock without knowing it, and
    somebody else went on. Tried again, it goes on from there.
    """
    with unit_locks(store, [unit], on_wait) as check:
        yield check


@contextmanager
def unit_locks(
    store: Store, units: Sequence[str], on_wait: Callable[[str], None] | None = None
) -> Iterator[Callable[[], None]]:
    """The same for several units, one after the other in the order of their codes.

    Who holds one unit waits for no other, so that nobody waits in a circle.
    """
    named = ", ".join(units)
    with store.seats.taken():
        with store.errors():
            connection = store.sessions.connect()
        unlocked = False
        try:
            with store.errors():
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                for unit in sorted(set(units)):
                    _acquire(connection, unit, on_wait)
            pid = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]

            # By another connection: of one that does nothing the server knows since when it holds the lock.
            def check() -> None:
                with store.begin() as other:
                    if not other.execute(_HOLDS, {"pid": pid}).scalar_one():
                        raise StoreUnavailable(
                            f"the lock of {', '.join(units)} was lost with its connection; try again"
                        )

            try:
                yield check
            except StoreError as error:
                if not isinstance(error, StoreConflict) and not is_duplicate(error):
                    raise
                raise StoreUnavailable(f"{named} was changed by another process meanwhile: {error}") from error
            finally:
                with suppress(DBAPIError):
                    connection.execute(text("SELECT pg_advisory_unlock_all()"))
                    unlocked = True
        finally:
            if not unlocked:  # whatever happened, such as Ctrl-C: ending the session releases its locks
                connection.invalidate()
            connection.close()


def _acquire(connection: Connection, unit: str, on_wait: Callable[[str], None] | None) -> None:
    if connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:unit, 0))"), {"unit": unit}):
        return
    connection.execute(text(f"SET lock_timeout = {_SLICE_MS}"))
    told = ""
    while True:
        holder = connection.execute(_HOLDER, {"unit": unit}).one_or_none()
        if holder is not None and on_wait is not None:
            name, since, zone = holder
            line = f"waiting for {unit}: {name or 'another program'} has held it"
            if since is not None:
                line += f" since {since.astimezone(ZoneInfo(zone or 'UTC')):%Y-%m-%d %H:%M:%S %Z}"
            if line != told:
                on_wait(line)
                told = line
        try:
            connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:unit, 0))"), {"unit": unit})
            connection.execute(text("RESET lock_timeout"))
            return
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
