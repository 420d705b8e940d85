"""The roles: `urban_reid_owner` owns every table and runs migrations; `urban_reid_app` reads and writes rows."""

from typing import Any

from psycopg2.sql import SQL, Identifier

#: Of the embedded server; it created the others, and only commands of `urban-reid db` use it.
SUPERUSER = "postgres"
OWNER = "urban_reid_owner"
APP = "urban_reid_app"


def ensure_role(cursor: Any, role: str) -> None:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    if cursor.fetchone() is None:
        cursor.execute(SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(Identifier(role)))


def may_become(cursor: Any, role: str) -> bool:
    """Whether the role exists and the session's user may SET ROLE to it."""
    privilege = "SET" if cursor.connection.server_version >= 160_000 else "MEMBER"
    cursor.execute(
        "SELECT 1 FROM pg_roles WHERE rolname = %s AND pg_has_role(session_user, oid, %s)", (role, privilege)
    )
    return cursor.fetchone() is not None
