"""Errors of the database driver, as errors of this project."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import DataError, Error, OperationalError, ProgrammingError
from psycopg2.errors import (
    AdminShutdown,
    CannotConnectNow,
    CrashShutdown,
    ForeignKeyViolation,
    IdleInTransactionSessionTimeout,
    ReadOnlySqlTransaction,
    SerializationFailure,
    UniqueViolation,
)
from sqlalchemy.exc import DBAPIError

from schemas.errors import NotAllowed, StoreConflict, StoreError, StoreUnavailable

#: The server is stopping or still starting, or ended the session of a process that stood still: a lost connection.
_LOST = (AdminShutdown, CrashShutdown, CannotConnectNow, IdleInTransactionSessionTimeout)
#: Others changed or removed a row after the transaction had read it.
_CONFLICT = (ForeignKeyViolation, SerializationFailure)
#: How the driver writes what a server answered to a connection, in any language; it gives no code of Postgres then.
_ANSWERED = re.compile(r"failed: \S+:  (.+)")
#: Answers after which another try may help: the server starts or ends, or a pool does not reach it.
_FOR_NOW = re.compile(
    r"starting up|shutting down|recovery|not yet accepting|try again later|server conn|connect to server"
)
_NO_SLOT = re.compile(r"too many (clients|connections)|connection slots|no more connections allowed")
#: SQLSTATE of what the tables' own rules refuse to whoever is signed in.
_NOT_ALLOWED = "UR001"


def not_allowed(said: str) -> NotAllowed:
    """What a rule says, with the command that it names apart from the fact."""
    with_remedy = re.fullmatch(r"(.*?)[;:] ([^;:]*`urban-reid .*)", said)
    return NotAllowed(with_remedy[1], do=with_remedy[2]) if with_remedy else NotAllowed(said)


def has_no_slot(error: object) -> bool:
    """Whether a connection was refused because all of the server's are taken."""
    return isinstance(error, OperationalError) and _NO_SLOT.search(str(error)) is not None


def is_duplicate(error: StoreError) -> bool:
    """Whether a row was refused because there is one already."""
    cause = error.__cause__
    return isinstance(cause.orig if isinstance(cause, DBAPIError) else cause, UniqueViolation)


@contextmanager
def database_errors(where: str, remedy: str) -> Iterator[None]:
    """Raises StoreUnavailable for a connection that is lost or cannot be opened, or a server that takes no writes yet,
    StoreError for every other error.

    NotAllowed for what the tables' rules do not allow whoever is signed in; StoreConflict for a row that was there when
    it was read, and no longer is or is another. `where` names the database in the message;
    `remedy` says what to do if it does not answer.
    """
    try:
        yield
    except (DBAPIError, Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        if getattr(cause, "pgcode", None) == _NOT_ALLOWED:
            raise not_allowed(said) from error
        # Without an error code of Postgres, no server answered, unless the driver could not send the values.
        unheard = getattr(cause, "pgcode", None) is None and not isinstance(cause, ProgrammingError | DataError)
        if has_no_slot(cause):
            raise StoreUnavailable(
                f"{where} has no connection left: {said.rpartition(':  ')[2]}; end programs that use it, or raise its "
                "max_connections"
            ) from error
        if (answer := _ANSWERED.search(said)) and not _FOR_NOW.search(answer[1]):
            raise StoreError(f"{where} refused the connection: {answer[1]}") from error
        # Class 08 is said by a pool, which has lost its server.
        if unheard or isinstance(cause, _LOST) or (getattr(cause, "pgcode", None) or "").startswith("08"):
            raise StoreUnavailable(f"{where} does not answer: {said}; {remedy}") from error
        if isinstance(cause, ReadOnlySqlTransaction):  # a replica with the database's address, before its promotion
            raise StoreUnavailable(f"{where} takes no writes now: {said}; {remedy}") from error
        refused = StoreConflict if isinstance(cause, _CONFLICT) else StoreError
        raise refused(f"{where} refused: {said}") from error
