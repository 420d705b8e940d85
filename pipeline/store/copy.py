"""COPY BINARY between numpy and Postgres.

Rows whose fields are all fixed in width are laid out by numpy as one structured array (about 100,000 rows of a 512-d
halfvec a second); rows with text, arrays or NULLs are joined field by field.
"""

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np
from psycopg2.errors import CheckViolation
from psycopg2.sql import SQL, Composable, Identifier
from sqlalchemy import Connection, text

from schemas.errors import StoreError, VectorError
from schemas.times import to_us

Values = Sequence[Any] | np.ndarray
#: One column read: an array, or a list where numpy has no such type or a NULL may stand.
Column = np.ndarray | list[Any]

HALF_MAX = 65_504.0
#: At or below half of the smallest halfvec number a number is stored as zero.
_HALF_ZERO = 2.0**-25
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
#: Postgres counts from 2000-01-01.
_EPOCH_US = 946_684_800_000_000
#: Fields are laid out for this many bytes at once, so that memory does not grow with the rows.
_CHUNK_BYTES = 8_000_000

_NUMBERS = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float4": ">f4", "float8": ">f8", "bool": "?"}


def copy_in(connection: Connection, table: str, columns: Mapping[str, tuple[str, Values]]) -> int:
    """Writes rows into `table` with COPY BINARY in the connection's transaction; returns how many.

    `columns`: name -> (type, values), all of one length. Types: int2 int4 int8 float4 float8 bool (numbers or arrays);
    text, enum (str); bytea (bytes); uuid (UUID); date (date); timestamptz (aware datetimes, or int64 microseconds since
    1970 UTC); int8[], float8[] (sequences of numbers); halfvec (floats, (n, D)). A sequence may hold None for NULL,
    except halfvec. Raises VectorError, before anything is sent, for a vector that is NaN, infinite, zero or beyond 65,504, and
    when the table's vectors have another width.
    """
    counts = {name: len(values) for name, (_, values) in columns.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"columns of {table} differ in length: {counts}")
    rows = next(iter(counts.values()))
    for name, (kind, values) in columns.items():
        if kind == "halfvec":
            _check_vectors(name, np.asarray(values))
    if not rows:
        return 0
    command = SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        Identifier(*table.split(".")), SQL(", ").join(Identifier(name) for name in columns)
    )
    encoded = [(kind, values) for kind, values in columns.values()]
    try:
        _copy(connection, command, _Reader(_encode(encoded, rows)))
    except CheckViolation as error:
        if error.diag.constraint_name != "width":
            raise
        raise VectorError(
            f"the vectors for {table} have another width than their model's: {error.diag.message_detail}"[:300]
        ) from error
    return rows


def copy_out(
    connection: Connection, sql: str, params: Mapping[str, Any], types: Mapping[str, str]
) -> dict[str, Column]:
    """Reads the rows of a query with COPY BINARY, as columns.

    `sql` names its parameters `:name`, as sqlalchemy.text does; `types` gives each column of the result, in order, its
    name here and its type. Numbers and bool come as arrays (NULL in a float as NaN), timestamptz as int64 microseconds
    since 1970 UTC, halfvec as float32 (n, D), with (0, 0) for no rows; bytea, text, enum, uuid, date and arrays as
    lists, with None for NULL. A type with a question mark, `int8?`, comes as a list with None for NULL. Raises
    StoreError if a NULL stands in another column, or the columns are not as said.
    """
    compiled = text(sql).compile(dialect=connection.dialect)
    cursor = connection.connection.cursor()
    try:
        plain = {
            name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            for name, value in params.items()
        }
        query = cursor.mogrify(str(compiled), plain).decode()
    finally:
        cursor.close()
    received = io.BytesIO()
    _copy(connection, SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(SQL(query)), received)
    return _decode(received.getbuffer(), types)


def _copy(connection: Connection, command: Composable, file: Any) -> None:
    clock = connection.get_execution_options().get("clock")
    cursor = connection.connection.cursor()
    try:
        if clock is None:
            cursor.copy_expert(command, file, 1 << 20)
        else:
            with clock.running():
                cursor.copy_expert(command, file, 1 << 20)
    finally:
        cursor.close()


# ---- writing


def _check_vectors(name: str, vectors: np.ndarray) -> None:
    """Refuses what halfvec cannot hold, or what has no direction. vectors: (n, D), any float."""
    if vectors.ndim != 2 or not vectors.shape[1]:
        if len(vectors):
            raise VectorError(f"{name}: vectors must be (n, D) with D > 0, these are {vectors.shape}")
        return
    for start in range(0, len(vectors), 4096):
        block = vectors[start : start + 4096]
        peak = np.maximum(block.max(axis=1), -block.min(axis=1))  # (n,) largest |x|; NaN if any x is
        bad = ~((peak > _HALF_ZERO) & (peak <= HALF_MAX))
        if bad.any():
            row = int(bad.argmax())
            found = peak[row]
            what = (
                "holds NaN" if np.isnan(found) else f"holds {found:g}, beyond 65504" if found > HALF_MAX else "is zero"
            )
            raise VectorError(f"{name}: vector {start + row} of {len(vectors)} {what}; it was not stored")


class _Reader:
    """What psycopg2 reads from: the chunks one after the other. A chunk may be longer than what was asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._at >= len(self._rest):
            self._rest, self._at = next(self._chunks, b""), 0
        part = self._rest[self._at : self._at + size]
        self._at += size
        return part


def _encode(columns: list[tuple[str, Values]], rows: int) -> Iterator[bytes]:
    yield _SIGNATURE
    step = max(1, _CHUNK_BYTES // sum(_guess_bytes(kind, values) for kind, values in columns))
    for start in range(0, rows, step):
        chunk = [_field(kind, values[start : start + step]) for kind, values in columns]
        count = min(step, rows - start)
        fixed = [field for field in chunk if isinstance(field, np.ndarray)]
        yield _joined_fixed(fixed, count) if len(fixed) == len(chunk) else _joined(chunk, count)
    yield _END


def _guess_bytes(kind: str, values: Values) -> int:
    return 4 + (2 * np.shape(values)[1] if kind == "halfvec" else 32)


def _joined_fixed(fields: list[np.ndarray], rows: int) -> bytes:
    layout: list[tuple[Any, ...]] = [("fields", ">i2")]
    for at, field in enumerate(fields):
        layout += [(f"length{at}", ">i4"), (f"field{at}", field.dtype, field.shape[1:])]
    laid = np.empty(rows, layout)
    laid["fields"] = len(fields)
    for at, field in enumerate(fields):
        laid[f"length{at}"] = field[0].nbytes
        laid[f"field{at}"] = field
    return laid.tobytes()


def _joined(fields: list["np.ndarray | list[bytes]"], rows: int) -> bytes:
    pieces = [[struct.pack(">h", len(fields))] * rows]
    for field in fields:
        if isinstance(field, np.ndarray):
            width = field[0].nbytes
            raw, length = field.tobytes(), struct.pack(">i", width)
            pieces.append([length + raw[at : at + width] for at in range(0, rows * width, width)])
        else:
            pieces.append(field)
    return b"".join(chain.from_iterable(zip(*pieces, strict=True)))


def _field(kind: str, values: Values) -> "np.ndarray | list[bytes]":
    """The column's fields: an array of equal ones in network order, or a list, each behind its length."""
    if kind == "halfvec":
        vectors = np.asarray(values)
        field = np.empty((len(vectors), 2 + vectors.shape[1]), ">u2")
        field[:, 0] = vectors.shape[1]
        field[:, 1] = 0
        field[:, 2:] = vectors.astype(">f2").view(">u2")
        return field
    if not isinstance(values, np.ndarray):
        some = [value for value in values if value is not None]
        if len(some) < len(values):
            return _with_nulls(kind, values, some)
    if kind in _NUMBERS:
        return _numbers(kind, values)
    if kind == "timestamptz":
        return _timestamps(values)
    if kind == "date":
        return np.array([value.toordinal() - _DAY_2000 for value in values], ">i4")
    payloads = [_payload(kind, value) for value in values]
    width = len(payloads[0])
    if width and all(len(payload) == width for payload in payloads):
        return np.frombuffer(b"".join(payloads), "u1").reshape(-1, width)
    return [len(payload).to_bytes(4, "big") + payload for payload in payloads]


_DAY_2000 = date(2000, 1, 1).toordinal()


def _with_nulls(kind: str, values: Sequence[Any], some: list[Any]) -> list[bytes]:
    if not some:
        return [_NULL] * len(values)
    field = _field(kind, some)
    if isinstance(field, np.ndarray):
        length, raw, width = struct.pack(">i", field[0].nbytes), field.tobytes(), field[0].nbytes
        field = [length + raw[at : at + width] for at in range(0, len(raw), width)]
    rest = iter(field)
    return [_NULL if value is None else next(rest) for value in values]


def _numbers(kind: str, values: Values) -> np.ndarray:
    given = np.asarray(values)
    wanted = np.dtype(_NUMBERS[kind])
    if wanted.kind == "i" and (given.dtype.kind not in "iu" or (len(given) and not _fits(given, wanted))):
        raise ValueError(f"values of type {given.dtype} do not fit a column of type {kind}")
    return given.astype(wanted)


def _fits(given: np.ndarray, wanted: np.dtype[Any]) -> bool:
    limits = np.iinfo(wanted)
    return int(given.min()) >= limits.min and int(given.max()) <= limits.max


def _timestamps(values: Values) -> np.ndarray:
    us = (
        [to_us(value) if isinstance(value, datetime) else value for value in values]
        if not isinstance(values, np.ndarray)
        else values
    )
    return (np.asarray(us, np.int64) - _EPOCH_US).astype(">i8")


def _payload(kind: str, value: Any) -> bytes:
    match kind:
        case "text" | "enum":
            return str(value).encode()
        case "bytea":
            return bytes(value)
        case "uuid":
            return UUID(str(value)).bytes if not isinstance(value, UUID) else value.bytes
        case "int8[]" | "float8[]":
            element, oid = (">i8", 20) if kind == "int8[]" else (">f8", 701)
            numbers = np.asarray(value, element)
            if not len(numbers):
                return struct.pack(">iiI", 0, 0, oid)
            fields = np.empty(len(numbers), [("length", ">i4"), ("value", element)])
            fields["length"], fields["value"] = 8, numbers
            # one dimension, no NULLs, the elements' type, counted from 1
            return struct.pack(">iiIii", 1, 0, oid, len(numbers), 1) + fields.tobytes()
    raise ValueError(f"no column type {kind!r}")


# ---- reading


def _decode(data: memoryview, types: Mapping[str, str]) -> dict[str, Column]:
    fixed = _fixed_rows(data, types)
    rows: Sequence[np.ndarray | list[bytes | None]] = _any_rows(data, len(types)) if fixed is None else fixed
    return {name: _column(name, kind, rows[at]) for at, (name, kind) in enumerate(types.items())}


def _fixed_rows(data: memoryview, types: Mapping[str, str]) -> list[np.ndarray] | None:
    """Per column (n, width) bytes, if every row is as wide as the first in every field; else None."""
    at = len(_SIGNATURE)
    (count,) = struct.unpack_from(">h", data, at)
    if count != len(types):
        return None
    layout: list[tuple[Any, ...]] = [("fields", ">i2")]
    at += 2
    for column in range(count):
        (length,) = struct.unpack_from(">i", data, at)
        if length <= 0:
            return None
        layout += [(f"length{column}", ">i4"), (f"field{column}", "u1", (length,))]
        at += 4 + length
    dtype = np.dtype(layout)
    body = len(data) - len(_SIGNATURE) - len(_END)
    if body % dtype.itemsize:
        return None
    rows = np.frombuffer(data, dtype, body // dtype.itemsize, len(_SIGNATURE))
    names = ["fields", *(f"length{column}" for column in range(count))]
    if any((rows[name] != rows[name][0]).any() for name in names):
        return None
    return [rows[f"field{column}"] for column in range(count)]


def _any_rows(data: memoryview, columns: int) -> list[list[bytes | None]]:
    found: list[list[bytes | None]] = [[] for _ in range(columns)]
    raw, at = bytes(data), len(_SIGNATURE)
    integer = struct.Struct(">i").unpack_from
    while raw[at : at + 2] != _END:
        (count,) = struct.unpack_from(">h", raw, at)
        if count != columns:
            raise StoreError(f"a query gave {count} columns where {columns} were expected")
        at += 2
        for column in found:
            (length,) = integer(raw, at)
            at += 4
            if length < 0:
                column.append(None)
            else:
                column.append(raw[at : at + length])
                at += length
    return found


def _column(name: str, kind: str, fields: "np.ndarray | list[bytes | None]") -> Column:
    if kind.endswith("?"):
        kind = kind[:-1]
        some = [bytes(field) for field in fields if field is not None]
        values = iter(_column(name, kind, some))  # type: ignore[arg-type]
        return [None if field is None else _plain(next(values)) for field in fields]
    if kind in _NUMBERS or kind in ("timestamptz", "halfvec"):
        return _array(name, kind, fields)
    read = _READERS[kind]
    return [None if field is None else read(bytes(field)) for field in fields]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _array(name: str, kind: str, fields: "np.ndarray | list[bytes | None]") -> np.ndarray:
    if isinstance(fields, list):
        null = np.array(np.nan, _NUMBERS[kind]).tobytes() if kind in ("float4", "float8") else None
        filled = [null if field is None else field for field in fields]
        if None in filled:
            raise StoreError(f"column {name} holds NULL, which an array of {kind} cannot; read it as `{kind}?`")
        widths = {len(field) for field in filled if field is not None}
        if len(widths) > 1:
            raise StoreError(f"column {name} holds vectors of several widths, which cannot be compared")
        width = widths.pop() if widths else 0
        fields = np.frombuffer(b"".join(field for field in filled if field is not None), "u1").reshape(
            len(filled), width
        )
    fields = np.ascontiguousarray(fields)
    if kind == "halfvec":
        return fields[:, 4:].copy().view(">f2").astype(np.float32)
    wanted = np.dtype(_NUMBERS.get(kind, ">i8"))
    if not len(fields):
        return np.empty(0, wanted.newbyteorder("="))
    if fields.shape[1] != wanted.itemsize:
        raise StoreError(f"column {name} is {fields.shape[1]} bytes wide, which is no {kind}")
    values = fields.view(wanted)[:, 0].astype(wanted.newbyteorder("="))
    return values + _EPOCH_US if kind == "timestamptz" else values


def _elements(field: bytes, element: str) -> list[Any]:
    (dimensions,) = struct.unpack_from(">i", field)
    if not dimensions:
        return []
    return list(np.frombuffer(field, [("length", ">i4"), ("value", element)], offset=20)["value"].tolist())


_READERS: dict[str, Any] = {
    "text": bytes.decode,
    "enum": bytes.decode,
    "bytea": bytes,
    "uuid": lambda field: UUID(bytes=field),
    "date": lambda field: date.fromordinal(struct.unpack(">i", field)[0] + _DAY_2000),
    "int8[]": lambda field: _elements(field, ">i8"),
    "float8[]": lambda field: _elements(field, ">f8"),
}
