"""PostgreSQL's binary COPY format, to and from numpy.

A file is a signature, rows and an end mark. A row is its number of fields (int16) and its fields, each as its length
(int32, -1 for NULL) and its bytes in network order. If each column's fields have one width, a chunk is one structured
array, which numpy fills with 100,000 rows of a 512-d halfvec a second and more; otherwise fields are joined one by one.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np

from schemas.errors import StoreError, VectorError
from schemas.times import to_us

Values = Sequence[Any] | np.ndarray
#: One column that was read: an array, or a list if numpy has no such type or the column may contain NULL.
Column = np.ndarray | list[Any]
#: A column's fields: an array (n, ...) if they have one width, else a list in which each field follows its length.
_Fields = np.ndarray | list[bytes]
_Read = np.ndarray | list[bytes | None]

#: The largest number that halfvec holds, and the largest that it stores as zero.
HALF_MAX = 65_504.0
_HALF_ZERO = 2.0**-25
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
#: PostgreSQL's epoch, 2000-01-01, in microseconds and in days since 1970.
_EPOCH_US = 946_684_800_000_000
_EPOCH_DAYS = 10_957
#: Approximate size of a chunk, which bounds the memory however many rows there are.
_CHUNK_BYTES = 8_000_000

_NUMBERS = {"int2": ">i2", "int4": ">i4", "int8": ">i8", "float4": ">f4", "float8": ">f8", "bool": "?"}
#: Arrays: the elements' numpy type and PostgreSQL's number of their type.
_ARRAYS = {"int8[]": (">i8", 20), "float8[]": (">f8", 701)}


def check_vectors(name: str, vectors: np.ndarray) -> None:
    """Raises VectorError for vectors that halfvec cannot hold or that are zero. vectors: (n, D) of any float type."""
    if not len(vectors):
        return
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind != "f":
        raise VectorError(f"{name}: vectors must be floats (n, D), these are {vectors.dtype} {vectors.shape}")
    for start in range(0, len(vectors), 4096):
        block = vectors[start : start + 4096]
        with np.errstate(invalid="ignore"):
            peak = np.maximum(block.max(axis=1), -block.min(axis=1))  # (n,) the largest |x|, NaN if any x is
            bad = ~((peak > _HALF_ZERO) & (peak <= HALF_MAX))
        if bad.any():
            row = int(bad.argmax())
            found = float(peak[row])
            what = "is zero" if found <= _HALF_ZERO else f"holds {found:g}"
            raise VectorError(
                f"{name}: vector {start + row} of {len(vectors)} {what}; its numbers must lie within ±65504, not all 0"
            )


# ---- writing


def encode(columns: Sequence[tuple[str, Values]], rows: int) -> Iterator[bytes]:
    """The file, chunk by chunk. columns: (type, values) as in `copy_in`, already checked; halfvec as an array."""
    yield _SIGNATURE
    widths = (
        2 * values.shape[1] if isinstance(values, np.ndarray) and values.ndim > 1 else 32 for _, values in columns
    )
    step = max(1, _CHUNK_BYTES // sum(widths))
    for start in range(0, rows, step):
        fields = [_fields(kind, values[start : start + step]) for kind, values in columns]
        fixed = [field for field in fields if isinstance(field, np.ndarray)]
        yield _laid_out(fixed) if len(fixed) == len(fields) else _joined(fields)
    yield _END


def _laid_out(fields: list[np.ndarray]) -> bytes:
    layout: list[tuple[Any, ...]] = [("fields", ">i2")]
    for at, field in enumerate(fields):
        layout += [(f"length{at}", ">i4"), (f"field{at}", field.dtype, field.shape[1:])]
    rows = np.empty(len(fields[0]), layout)
    rows["fields"] = len(fields)
    for at, field in enumerate(fields):
        rows[f"length{at}"] = field[0].nbytes
        rows[f"field{at}"] = field
    return rows.tobytes()


def _joined(columns: list[_Fields]) -> bytes:
    pieces = [_with_lengths(fields) for fields in columns]
    head = [struct.pack(">h", len(columns))] * len(pieces[0])
    return b"".join(chain.from_iterable(zip(head, *pieces, strict=True)))


def _with_lengths(fields: _Fields) -> list[bytes]:
    if isinstance(fields, list):
        return fields
    width, raw = fields[0].nbytes, fields.tobytes()
    length = struct.pack(">i", width)
    return [length + raw[at : at + width] for at in range(0, len(raw), width)]


def _fields(kind: str, values: Values) -> _Fields:
    if not isinstance(values, np.ndarray):
        some = [value for value in values if value is not None]
        if len(some) < len(values):
            rest = iter(_with_lengths(_fields(kind, some)) if some else ())
            return [_NULL if value is None else next(rest) for value in values]
    if kind == "halfvec":
        vectors = np.asarray(values)
        halfvec = np.empty((len(vectors), 2 + vectors.shape[1]), ">u2")
        halfvec[:, 0], halfvec[:, 1] = vectors.shape[1], 0  # D, and a word that pgvector reserves
        halfvec[:, 2:] = vectors.astype(">f2").view(">u2")
        return halfvec
    if kind in _NUMBERS:
        return _numbers(kind, np.asarray(values))
    if kind == "timestamptz":
        if not isinstance(values, np.ndarray):
            values = np.asarray([to_us(value) if isinstance(value, datetime) else value for value in values])
        return (_numbers("int8", values) - _EPOCH_US).astype(">i8")
    if kind == "date":
        return (np.asarray(values, "datetime64[D]").astype(np.int64) - _EPOCH_DAYS).astype(">i4")
    payloads = [_payload(kind, value) for value in values]
    width = len(payloads[0])
    if width and all(len(payload) == width for payload in payloads):
        return np.frombuffer(b"".join(payloads), "u1").reshape(-1, width)
    return [struct.pack(">i", len(payload)) + payload for payload in payloads]


def _numbers(kind: str, values: np.ndarray) -> np.ndarray:
    wanted = np.dtype(_NUMBERS[kind])
    if wanted.kind == "i":
        limits = np.iinfo(wanted)
        if values.dtype.kind not in "iu" or values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"values of type {values.dtype} do not fit a column of type {kind}")
    return values.astype(wanted)


def _payload(kind: str, value: Any) -> bytes:
    match kind:
        case "text" | "enum":
            return str(value).encode()
        case "bytea":
            return bytes(value)
        case "uuid":
            return UUID(str(value)).bytes
        case "int8[]" | "float8[]":
            form, oid = _ARRAYS[kind]
            if not len(value):
                return struct.pack(">iiI", 0, 0, oid)
            elements = np.empty(len(value), [("length", ">i4"), ("value", form)])
            elements["length"], elements["value"] = 8, value
            # one dimension, no NULLs, the elements' type; their number, the first index
            return struct.pack(">iiIii", 1, 0, oid, len(value), 1) + elements.tobytes()
    raise ValueError(f"no column type {kind!r}")


# ---- reading


def decode(data: memoryview, types: Mapping[str, str]) -> dict[str, Column]:
    """The columns of a whole file; see `copy_out`."""
    fixed = _fixed_rows(data, types)
    columns: Sequence[_Read] = _any_rows(data, len(types)) if fixed is None else fixed
    return {name: _column(name, kind, columns[at]) for at, (name, kind) in enumerate(types.items())}


def _fixed_rows(data: memoryview, types: Mapping[str, str]) -> list[np.ndarray] | None:
    """Per column (n, width) bytes, if in each column all fields are as wide as the first; else None."""
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
    row = np.dtype(layout)
    body = len(data) - len(_SIGNATURE) - len(_END)
    if body % row.itemsize:
        return None
    rows = np.frombuffer(data, row, body // row.itemsize, len(_SIGNATURE))
    if any((rows[name] != rows[name][0]).any() for name in ("fields", *(f"length{at}" for at in range(count)))):
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
            column.append(None if length < 0 else raw[at : at + length])
            at += max(length, 0)
    return found


def _column(name: str, kind: str, fields: _Read) -> Column:
    if kind.endswith("?"):
        values = iter(_column(name, kind[:-1], [field for field in fields if field is not None]))
        return [None if field is None else _plain(next(values)) for field in fields]
    if kind in _NUMBERS or kind in ("timestamptz", "halfvec"):
        return _array(name, kind, fields)
    read = _READERS[kind]
    return [None if field is None else read(bytes(field)) for field in fields]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _array(name: str, kind: str, fields: _Read) -> np.ndarray:
    if isinstance(fields, list):
        null = np.array(np.nan, _NUMBERS[kind]).tobytes() if kind in ("float4", "float8") else None
        there = [bytes(field) for field in (null if field is None else field for field in fields) if field is not None]
        if len(there) < len(fields):
            raise StoreError(f"column {name} contains NULL, which an array of {kind} cannot; read it as `{kind}?`")
        widths = {len(field) for field in there}
        if len(widths) > 1:
            raise StoreError(f"column {name} contains vectors of several widths, which cannot be compared")
        fields = np.frombuffer(b"".join(there), "u1").reshape(len(there), widths.pop() if widths else 0)
    fields = np.ascontiguousarray(fields)  # (n, width) bytes
    if kind == "halfvec":
        return np.ascontiguousarray(fields[:, 4:]).view(">f2").astype(np.float32)
    wanted = np.dtype(_NUMBERS.get(kind, ">i8"))
    if not len(fields):
        return np.empty(0, wanted.newbyteorder("="))
    if fields.shape[1] != wanted.itemsize:
        raise StoreError(f"column {name} is {fields.shape[1]} bytes wide, which does not fit {kind}")
    values = fields.view(wanted)[:, 0].astype(wanted.newbyteorder("="))
    return values + _EPOCH_US if kind == "timestamptz" else values


def _elements(field: bytes, form: str) -> list[Any]:
    if not struct.unpack_from(">i", field)[0]:
        return []
    return list(np.frombuffer(field, [("length", ">i4"), ("value", form)], offset=20)["value"].tolist())


_READERS: dict[str, Any] = {
    "text": bytes.decode,
    "enum": bytes.decode,
    "bytea": bytes,
    "uuid": lambda field: UUID(bytes=field),
    "date": lambda field: date.fromordinal(struct.unpack(">i", field)[0] + date(2000, 1, 1).toordinal()),
    "int8[]": lambda field: _elements(field, ">i8"),
    "float8[]": lambda field: _elements(field, ">f8"),
}
