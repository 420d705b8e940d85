"""The roles of the database.

`urban_reid_owner` owns every table and runs migrations. The program works as three others: `urban_reid_worker` for what
it does alone, such as ingest and resolve; `urban_reid_app` for what people do and see, under row-level security;
`urban_reid_signin` for accounts and sessions. docs/decisions/database-roles.md says why.
"""

from collections.abc import Iterator
from typing import Any

from psycopg2.errors import InsufficientPrivilege, UndefinedObject

#: Of the embedded server; it created the others, and only commands of `urban-reid db` use it.
SUPERUSER = "postgres"
OWNER = "urban_reid_owner"
WORKER = "urban_reid_worker"
APP = "urban_reid_app"
SIGNIN = "urban_reid_signin"
#: As which the program works.
PROGRAM = (WORKER, APP, SIGNIN)
#: Whose rows no policy hides: dumps and migrations must see all, and COPY FROM is refused under row-level security.
SEE_ALL = (OWNER, WORKER)


def attributes(role: str) -> str:
    """The attributes that CREATE ROLE or ALTER ROLE gives to one of our roles."""
    return "BYPASSRLS" if role in SEE_ALL else "NOBYPASSRLS"


def prepare(cursor: Any) -> list[str]:
    """Creates our roles on a server, and lets the session's user become them; returns the statements that he may not.

    A superuser has to run those once.
    """
    return [statement for statement in _missing(cursor) if not _allowed(cursor, statement)]


def _missing(cursor: Any) -> Iterator[str]:
    for role in (OWNER, *PROGRAM):
        cursor.execute("SELECT rolbypassrls FROM pg_roles WHERE rolname = %s", (role,))
        found = cursor.fetchone()
        if found is None:
            yield f"CREATE ROLE {role} {attributes(role)}"
        elif role in SEE_ALL and not found[0]:
            yield f"ALTER ROLE {role} {attributes(role)}"
        if not may_become(cursor, role):
            cursor.execute("SELECT quote_ident(session_user)")
            yield f"GRANT {role} TO {cursor.fetchone()[0]}"


def _allowed(cursor: Any, statement: str) -> bool:
    cursor.execute("SAVEPOINT one")
    try:
        cursor.execute(statement)
    except (InsufficientPrivilege, UndefinedObject):
        cursor.execute("ROLLBACK TO one")
        return False
    return True


def may_become(cursor: Any, role: str) -> bool:
    """Whether the role exists and the session's user may SET ROLE to it."""
    privilege = "SET" if cursor.connection.server_version >= 160_000 else "MEMBER"
    cursor.execute(
        "SELECT 1 FROM pg_roles WHERE rolname = %s AND pg_has_role(session_user, oid, %s)", (role, privilege)
    )
    return cursor.fetchone() is not None


def exists(cursor: Any, role: str) -> bool:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    return cursor.fetchone() is not None
