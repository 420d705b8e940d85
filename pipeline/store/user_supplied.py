"""A PostgreSQL server supplied by the user: `URBAN_REID_DATABASE_URL`.

That address may be one of a pool (PgBouncer) which gives a server connection to a client for one transaction. Then
`URBAN_REID_DATABASE_DIRECT_URL` is the server's own, for what outlives a transaction.

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
    return _parsed("URBAN_REID_DATABASE_URL", settings.database_url)


def direct_url(settings: Settings) -> URL:
    """The address of the server itself, for sessions that keep a role, a lock or a snapshot. Errors: as above."""
    if settings.database_direct_url is None:
        return supplied_url(settings)
    return _parsed("URBAN_REID_DATABASE_DIRECT_URL", settings.database_direct_url)


def replica_url(settings: Settings) -> URL:
    """The address of a replica to read from. Errors: as above."""
    assert settings.replica_url is not None
    return _parsed("URBAN_REID_REPLICA_URL", settings.replica_url)


def _parsed(setting: str, address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise StoreError(
            f"{setting} is not an address; write postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise StoreError(f"{setting} starts with {url.drivername}://; use postgresql+psycopg2://")
    return url.set(drivername="postgresql+psycopg2")


def connect(url: URL, *, pooled: bool = False, **options: Any) -> Any:
    """A psycopg2 connection as the address's user.

    pooled: of a pool, whose server's session is left as it is. Else raises StoreError for an address of a pool, where
    what a session keeps would be left to the next one.
    """
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    asked = {"client_encoding": "utf8"} | for_client(parse_dsn(plain)) | tls(url)
    try:
        connection = psycopg2.connect(plain, **(asked | options))
    except psycopg2.OperationalError as error:
        if said := next((line for line in str(error).splitlines() if _is_about_tls(line)), None):
            raise StoreError(f"{url.render_as_string(hide_password=True)}: {said}; {_REMEDY}") from None
        raise
    if pooled:
        return connection
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        is_of_pool = cursor.fetchone() != (connection.info.backend_pid,)  # a pool makes up what its client is told
        if not is_of_pool:
            cursor.execute(FOR_SERVER)
            if connection.get_parameter_status("TimeZone") != "UTC":
                cursor.execute("SET TIME ZONE 'UTC'")
    if is_of_pool:
        connection.close()
        address = url.render_as_string(hide_password=True)
        raise StoreError(f"{address} is the address of a pool such as PgBouncer; {_POOL}")
    return connection


def tls(url: URL) -> dict[str, str]:
    """libpq's sslmode for this address; empty where the address or the environment says, or where it is not needed."""
    named: dict[str, str] = parse_dsn(url.set(drivername="postgresql").render_as_string(hide_password=False))
    return {} if _says("sslmode", named) or _is_this_machine(named) else {"sslmode": "verify-full"}


_POOL = (
    "locks, migrations and backups need sessions of their own: name the server's own address in "
    "URBAN_REID_DATABASE_DIRECT_URL"
)
_REMEDY = (
    "a server on another machine must show a certificate that can be verified: name the file of its authority in "
    "its address with ?sslrootcert=FILE (sslrootcert=system: those that this machine trusts), or say "
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
