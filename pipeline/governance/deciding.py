"""Transactions in which somebody decides something: whoever is signed in acts, and a refusal is a row of the audit."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.governance.doors import grant_of, refused
from pipeline.store import Store
from schemas.errors import NotAllowed


@contextmanager
def deciding(store: Store, what: str, request: UUID | None = None) -> Iterator[Connection]:
    """One transaction of `Store.signed_in`. What the tables' rules refuse is NotAllowed, after an audit row of its own.

    what: what is done, such as "opening a case". request: as for `Store.signed_in`.
    """
    try:
        with store.signed_in(request) as connection:
            yield connection
    except NotAllowed as error:
        with store.signed_in(request) as connection:
            grant = grant_of(connection)
        raise refused(store, grant, what, str(error), "") from None


def check_may_export(store: Store, what: str) -> None:
    """Raises NotAllowed, after an audit row, where nothing may leave a live home: in urgent use before its approval."""
    with deciding(store, what) as connection:
        connection.execute(text("SELECT check_may_export(:what)"), {"what": what})


def actor_of(store: Store, connection: Connection, said: str | None = None) -> str:
    """The name of whoever acts, for the audit; in an open home who it is said to be."""
    grant = grant_of(connection)
    return (said or store.settings.operator) if grant is None or grant.name is None else grant.name


def authorized_by(connection: Connection) -> dict[str, str]:
    """Case and authorization of the session, for the audit; empty in an open home."""
    row = connection.execute(text("SELECT (granted()).authorization_id AS authorization, case_now() AS case")).one()
    return {name: str(found) for name, found in row._mapping.items() if found is not None}
