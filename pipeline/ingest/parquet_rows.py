"""Rows of a Parquet manifest.

A kilobyte of Parquet can stand for gigabytes: values are compressed, and stored once for any number of rows. So what it
stands for is bounded before it is read, by the file's own description of its columns, and before values become Python
objects, by their lengths; only known columns are read, a thousand rows at a time. A file may describe itself falsely:
it is read by a process of its own, which has MEMORY_BYTES and no more. That process is this module too.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import InputError
from schemas.times import EPOCH

#: Longest text; a path may have 4,096 characters.
MAX_VALUE_BYTES = 16_384
#: Largest column of a row group: a million rows with paths of 100 characters.
MAX_COLUMN_BYTES = 128 * 2**20
#: What the process that reads may take beside its programs.
MEMORY_BYTES = 512 * 2**20
_HEADERS_BYTES = 65_536  # of a column's pages
_NUMBERS_IN_BOX = 4
_ROWS = 1000
#: Ticks of Arrow's timestamp units in a second.
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def parquet_rows(path: Path, known: Collection[str]) -> Iterator[dict[str, Any]]:
    """Each row's values by column, without nulls. An unknown column is in the rows, as None, unless it is all null.

    Raises InputError for a file that cannot be read, or that would take too much memory.
    """
    number = 0
    command = [sys.executable, "-P", "-m", __name__, str(path), *known]
    with subprocess.Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL) as reader:
        assert reader.stdout is not None
        try:
            for line in reader.stdout:
                match json.loads(line):
                    case {"error": str(said)}:
                        raise InputError(said)
                    case dict(row):
                        number += 1
                        yield row
                    case None:
                        return
        finally:
            reader.kill()
    raise InputError(
        f"{path}: cannot be read as Parquet after row {number}: it needs more than {MEMORY_BYTES // 2**20} MB of "
        "memory, or is damaged"
    )


def main() -> None:
    """Writes each row of the file of the command line as a line of JSON, null after the last, or what is wrong."""
    pa.set_cpu_count(1)
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = used + MEMORY_BYTES if most == resource.RLIM_INFINITY else min(used + MEMORY_BYTES, most)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))
    path, known = Path(sys.argv[1]), sys.argv[2:]
    try:
        for row in _rows(path, known):
            sys.stdout.write(json.dumps(row, default=_text) + "\n")
        sys.stdout.write("null\n")
    except InputError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
    except OSError as error:
        sys.stdout.write(json.dumps({"error": f"{path}: cannot be read: {error.strerror or error}"}) + "\n")


def _text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _rows(path: Path, known: Collection[str]) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [field.name for field in file.schema_arrow]
            unknown = {name: None for name in columns if name not in known and not _is_null(file.metadata, name)}
            kept = [field for field in file.schema_arrow if field.name in known]
            texts = [field.name for field in kept if _is_text(field.type)]
            for field in kept:
                _check_type(path, field)
            _check_sizes(path, file.metadata, {field.name for field in kept})
        with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_ROWS, columns=[field.name for field in kept]):
                _check_lengths(path, number, batch)
                for row in _with_text_times(batch).to_pylist():
                    number += 1
                    yield unknown | {name: value for name, value in row.items() if value is not None}
    except (pa.ArrowException, ValueError, OverflowError) as error:
        where = f" after row {number}" if number else ""
        raise InputError(f"{path}: cannot be read as Parquet{where}: {' '.join(str(error).split())[:200]}") from None


def _is_null(metadata: pq.FileMetaData, name: str) -> bool:
    """Whether the file states that a column has no value."""
    for group, column in _chunks(metadata):
        if _top(column) == name and group.num_rows:
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count or statistics.null_count != column.num_values:
                return False
    return True


def _check_type(path: Path, field: pa.Field) -> None:
    """Raises InputError for lists, other than a box of numbers, and for structures."""
    kind = field.type
    if field.name == "box" and (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        kind = kind.value_type
        if _is_text(kind):
            raise InputError(f"{path}: the column box holds lists of {kind}, not of numbers")
    if pa.types.is_nested(kind):
        raise InputError(f"{path}: the column {field.name} holds {str(field.type)[:80]}, which no manifest has there")


def _check_sizes(path: Path, metadata: pq.FileMetaData, names: Collection[str]) -> None:
    for group, column in _chunks(metadata):
        name = _top(column)
        if name not in names:
            continue
        values = _NUMBERS_IN_BOX if name == "box" else 1
        if column.num_values > values * group.num_rows:
            raise InputError(f"{path}: the column {name} has {column.num_values} values in {group.num_rows} rows")
        most = min(MAX_COLUMN_BYTES, group.num_rows * MAX_VALUE_BYTES + _HEADERS_BYTES)
        if column.total_uncompressed_size > most:
            raise InputError(
                f"{path}: the column {name} has {column.total_uncompressed_size} bytes in a group of {group.num_rows} "
                f"rows; at most {most} are read, and {MAX_VALUE_BYTES} a value"
            )


def _check_lengths(path: Path, number: int, batch: pa.RecordBatch) -> None:
    """Raises InputError for a text of a batch that is too long; `number` rows lie before it."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if _is_text(values.type):
            longest = pc.max(pc.binary_length(values)).as_py() or 0
            if longest > MAX_VALUE_BYTES:
                raise InputError(
                    f"{path}: row {number + 1} or one of the {_ROWS} after it: {name} has {longest} bytes; at most "
                    f"{MAX_VALUE_BYTES} are read"
                )


def _chunks(metadata: pq.FileMetaData) -> Iterator[tuple[pq.RowGroupMetaData, pq.ColumnChunkMetaData]]:
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        for number in range(group.num_columns):
            yield group, group.column(number)


def _top(column: pq.ColumnChunkMetaData) -> str:
    """The name of the column that a part such as `box.list.element` belongs to."""
    return str(column.path_in_schema).split(".", 1)[0]


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _with_text_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with a timestamp column `time` as ISO 8601 text: UTC if the column has a zone, else without one."""
    index = batch.schema.get_field_index("time")
    if index < 0 or not pa.types.is_timestamp(batch.schema.field(index).type):
        return batch
    kind = batch.schema.field(index).type
    counts = batch.column(index).cast(pa.int64()).to_pylist()
    texts = [None if count is None else _time_text(count, kind.unit, zoned=kind.tz is not None) for count in counts]
    return batch.set_column(index, "time", pa.array(texts, pa.string()))


def _time_text(count: int, unit: str, *, zoned: bool) -> str:
    """A timestamp as ISO 8601 text; one outside the years 1 to 9999 as a number, which no time parser takes."""
    try:
        moment = EPOCH + timedelta(microseconds=count * _PER_SECOND["us"] // _PER_SECOND[unit])
    except OverflowError:
        return f"{count} {unit} since 1970"
    return (moment if zoned else moment.replace(tzinfo=None)).isoformat()


if __name__ == "__main__":
    main()
