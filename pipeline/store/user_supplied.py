"""A PostgreSQL server supplied by the user: `URBAN_REID_DATABASE_URL`.

What the address leaves out, libpq takes from its environment variables (PGPASSWORD, PGPASSFILE, PGSSLMODE, PGPORT ...),
as psql does with the same address. Settings that would change what we read do not count: a session uses UTF-8 and UTC,
whatever the environment, the role or the server says.

A connection to another machine is encrypted, and the server's certificate verified (sslmode=verify-full), unless the
address or PGSSLMODE says otherwise.
"""

import os
from ipaddress import ip_address
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from pipeline.store.silence import FOR_SERVER, for_client
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
    asked = {"client_encoding": "utf8"} | for_client(parse_dsn(plain)) | tls(url)
    try:
        connection = psycopg2.connect(plain, **(asked | options))
    except psycopg2.OperationalError as error:
        if said := next((line for line in str(error).splitlines() if _is_about_tls(line)), None):
            raise StoreError(f"{url.render_as_string(hide_password=True)}: {said}; {_REMEDY}") from None
        raise
    with connection, connection.cursor() as cursor:
        cursor.execute(FOR_SERVER)
        if connection.get_parameter_status("TimeZone") != "UTC":
            cursor.execute("SET TIME ZONE 'UTC'")
    return connection


def tls(url: URL) -> dict[str, str]:
    """libpq's sslmode for this address; empty where the address or the environment says, or where it is not needed."""
    named: dict[str, str] = parse_dsn(url.set(drivername="postgresql").render_as_string(hide_password=False))
    return {} if _says("sslmode", named) or _is_this_machine(named) else {"sslmode": "verify-full"}


_REMEDY = (
    "a server on another machine must show a certificate that can be verified: name the file of its authority in "
    "URBAN_REID_DATABASE_URL with ?sslrootcert=FILE (sslrootcert=system: those that this machine trusts), or say "
    "?sslmode=require to encrypt without knowing whom you talk to"
)


def _says(name: str, named: dict[str, str]) -> str | None:
    """What the address says or, where it says nothing, libpq's variable."""
    return named.get(name) or os.environ.get(f"PG{name.upper()}")


def _is_this_machine(named: dict[str, str]) -> bool:
    """Whether the server is reached through a Unix socket or loopback. A service's file is not read for it."""
    where = _says("hostaddr", named) or _says("host", named)
    if where is None:
        return _says("service", named) is None
    return all(_is_local(host) for host in where.split(","))


def _is_local(host: str) -> bool:
    if not host or host[0] in "/@" or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_about_tls(line: str) -> bool:
    return ("certificate" in line or "does not support SSL" in line) and "FATAL:" not in line
