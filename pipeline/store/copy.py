"""COPY between numpy and Postgres: arrays in, arrays out, inside the connection's transaction."""

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
from psycopg2.errors import CheckViolation, QueryCanceled
from psycopg2.extensions import AsIs
from psycopg2.sql import SQL, Composable, Identifier
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from pipeline.store.copy_format import Column, Values, check_vectors, decode, encode
from schemas.errors import VectorError

#: Columns to write: name -> (type, values).
Columns = Mapping[str, tuple[str, Values]]

_READ_BYTES = 1 << 20


def copy_in(connection: Connection, table: str, columns: Columns) -> int:
    """Writes rows into `table` with COPY BINARY in the connection's transaction; returns their number.

    `columns`: name -> (type, values), all of one length. Types: int2 int4 int8 float4 float8 bool (numbers or arrays);
    text, enum (str); bytea (bytes); uuid (UUID); date (dates or a datetime64 array); timestamptz (aware datetimes, or
    int64 microseconds since 1970 UTC); int8[], float8[] (sequences of numbers); halfvec (floats, (n, D)). A sequence
    may contain None for NULL, except halfvec. Raises VectorError, before anything is sent, for a vector that is zero or
    contains NaN, infinity or a number beyond 65,504; and if the table's vectors have another width.
    """
    counts = {name: len(values) for name, (_, values) in columns.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"columns of {table} differ in length: {counts}")
    given = {
        name: (kind, np.asarray(values) if kind == "halfvec" else values) for name, (kind, values) in columns.items()
    }
    for name, (kind, values) in given.items():
        if kind == "halfvec":
            check_vectors(f"{table}.{name}", np.asarray(values))
    rows = next(iter(counts.values()))
    if not rows:
        return 0
    command = SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        Identifier(*table.split(".")), SQL(", ").join(Identifier(name) for name in columns)
    )
    reader = _Reader(encode(list(given.values()), rows))
    try:
        _copy(connection, command, reader)
    except QueryCanceled:
        if reader.error is None:
            raise
        raise reader.error from None
    except CheckViolation as error:
        if error.diag.constraint_name != "width":
            raise
        raise VectorError(f"vectors for {table} have another width than the features of their model") from error
    return rows


def copy_out(
    connection: Connection, sql: str, params: Mapping[str, Any], types: Mapping[str, str]
) -> dict[str, Column]:
    """Reads the rows of a query with COPY BINARY, as columns.

    `sql` names its parameters `:name`, as sqlalchemy.text does; `types` gives a name and a type to each column of the
    result, in order. Returns numbers and bool as arrays (NULL in a float as NaN), timestamptz as int64 microseconds
    since 1970 UTC, halfvec as float32 (n, D), or (0, 0) for no rows; bytea, text, enum, uuid, date and arrays as lists,
    with None for NULL. A type with a question mark, `int8?`, is returned as a list with None for NULL. Raises
    StoreError if another column contains NULL, or if the columns differ from `types`.
    """
    plain = {name: _literal(value) for name, value in params.items()}
    with closing(connection.connection.cursor()) as cursor:
        query = cursor.mogrify(_compiled(sql), plain).decode()
    received = io.BytesIO()
    _copy(connection, SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(SQL(query)), received)
    return decode(received.getbuffer(), types)


@lru_cache
def _compiled(sql: str) -> str:
    return str(text(sql).compile(dialect=PGDialect_psycopg2()))  # type: ignore[no-untyped-call]


def _literal(value: Any) -> Any:
    """The value as psycopg2 quotes it; many integers as one text, which the server parses faster than an ARRAY[...]."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        return AsIs(f"'{{{','.join(map(str, value))}}}'::bigint[]")
    return value


_NEW_IDS = text(
    "SELECT array_agg(nextval(sequence)) FROM generate_series(1, :n), "
    "(SELECT CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS sequence OFFSET 0) AS of"
)


def new_ids(connection: Connection, table: str, count: int) -> list[int]:
    """`count` unused values of the `id` column of `table`, taken from its sequence."""
    found: list[int] = connection.execute(_NEW_IDS, {"table": table, "n": count}).scalar_one() if count else []
    return found


def _copy(connection: Connection, command: Composable, file: Any) -> None:
    clock = connection.get_execution_options().get("clock")
    with closing(connection.connection.cursor()) as cursor, clock.running() if clock else nullcontext():
        cursor.copy_expert(command, file, _READ_BYTES)


class _Reader:
    """The file that psycopg2 reads from, chunk by chunk. `error`: the exception that ended it early, or None."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        if self._at >= len(self._chunk):
            try:
                self._chunk, self._at = next(self._chunks, b""), 0
            except Exception as error:
                self.error = error
                raise
        part = self._chunk[self._at : self._at + size]
        self._at += size
        return part
