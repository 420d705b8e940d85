"""A PostgreSQL server supplied by the user: `URBAN_REID_DATABASE_URL`.

What the address leaves out, libpq takes from its environment variables (PGPASSWORD, PGPASSFILE, PGSSLMODE, PGPORT ...),
as psql does with the same address. Settings that would change what we read do not count: a session uses UTF-8 and UTC,
whatever the environment, the role or the server says.
"""

from typing import Any

import psycopg2
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from schemas.errors import StoreError
from schemas.settings import Settings


def supplied_url(settings: Settings) -> URL:
    """The address in SQLAlchemy's form, postgresql+psycopg2://... Raises StoreError, which never shows the password."""
    assert settings.database_url is not None
    try:
        url = make_url(settings.database_url)
    except (ArgumentError, ValueError):
        raise StoreError(
            "URBAN_REID_DATABASE_URL is not an address; write postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise StoreError(f"URBAN_REID_DATABASE_URL starts with {url.drivername}://; use postgresql+psycopg2://")
    return url.set(drivername="postgresql+psycopg2")


def connect(url: URL, **options: Any) -> Any:
    """A psycopg2 connection as the address's user."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(plain, **({"connect_timeout": 10, "client_encoding": "utf8"} | options))
    if connection.get_parameter_status("TimeZone") != "UTC":
        with connection, connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
    return connection
