"""What the database driver raises, in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import DataError, Error, ProgrammingError
from psycopg2.errors import AdminShutdown, CannotConnectNow, CrashShutdown
from sqlalchemy.exc import DBAPIError

from schemas.errors import StoreError, StoreUnavailable

#: The server ends, or is not there yet: as good as no connection.
_LOST = (AdminShutdown, CrashShutdown, CannotConnectNow)


@contextmanager
def database_errors(where: str, remedy: str) -> Iterator[None]:
    """Raises StoreUnavailable for a connection that is lost or cannot be made, StoreError for everything else."""
    try:
        yield
    except (DBAPIError, Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        # An error without a code of Postgres' came from no server, or is about values that the driver cannot send.
        unheard = getattr(cause, "pgcode", None) is None and not isinstance(cause, ProgrammingError | DataError)
        if unheard or isinstance(cause, _LOST):
            raise StoreUnavailable(f"{where} does not answer: {said}; {remedy}") from error
        raise StoreError(f"{where} refused: {said}") from error
