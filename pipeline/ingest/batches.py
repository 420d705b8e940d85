"""Batches: each ingest of a file, folder or stream with its options, who began it, and what it brought.

The same content with the same options is the same batch: after an interruption, and when it is repeated, an ingest goes
on with it. A batch that was undone is closed; the same source may be taken in again as a new one. A crop counts to the
batch that brought it first; a later batch that brings it too claims it (crop_claim).
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, text

from pipeline.store import Store
from schemas.crops import IngestReport
from schemas.errors import InputError
from schemas.keys import content_hash

#: What an ingest does that finds the same content in the city, taken in with other options.
Again = Literal["refuse", "add", "replace"]


@dataclass(frozen=True)
class Source:
    """What an ingest takes in. `door` enters each crop's key, see `take_in`."""

    door: str
    name: str  # for people: a path, or a camera's address without its user, password and path
    content: bytes | None = None  # its SHA-256; None: a stream, which no other ingest can repeat
    options: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False  # rendered or simulated people: the home stays open to whoever runs the program

    @cached_property
    def digest(self) -> bytes:
        """Equal for the same content with the same options."""
        given = [part for option in sorted(self.options.items()) for part in option]
        return content_hash("ingest", (self.door, self.content or uuid.uuid4().bytes, *given))


@dataclass(frozen=True)
class Batch:
    """A row of ingest_batch. `crops`: how many count to it and take part now."""

    id: int
    door: str
    name: str
    options: Mapping[str, str]
    operator: str
    begun_at: datetime
    ended_at: datetime | None
    read: int
    left_out: int
    written: int
    notes: Sequence[str]
    undone_at: datetime | None
    undone_by: str | None
    undo_reason: str | None
    crops: int

    def with_options(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.options.items())


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content. Raises InputError for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def path_text(path: Path) -> str:
    """A path as text that every table and terminal can hold; bytes that are not UTF-8 with backslashes."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


def others(store: Store, source: Source, again: Again) -> list[Batch]:
    """Batches of the same content with other options that `source` is to replace.

    Raises InputError if there are such batches and `again` is `refuse`.
    """
    with store.begin() as connection:
        same = [batch for batch in same_content(connection, source) if batch.crops]
    if same and again == "refuse":
        there = "; ".join(f"batch {batch.id}: {batch.crops} crops, {batch.with_options()}" for batch in same)
        raise InputError(
            f"{source.name} was taken in before with other options, and this would add to what is there ({there}); "
            "--add adds to it, --replace undoes that first"
        )
    return same if again == "replace" else []


_OPEN = text(
    "INSERT INTO ingest_batch (digest, content, door, name, options, operator, synthetic) "
    "VALUES (:digest, :content, :door, :name, CAST(:options AS json), :operator, :synthetic) "
    "ON CONFLICT (digest) WHERE undone_at IS NULL DO UPDATE SET ended_at = NULL, read = 0, left_out = 0 RETURNING id"
)


def open_batch(connection: Connection, source: Source, operator: str) -> int:
    """The id of the batch of this content with these options, a new one unless there is one that was not undone."""
    parameters = {
        "digest": source.digest,
        "content": source.content,
        "door": source.door,
        "name": source.name,
        "options": json.dumps(source.options),
        "operator": operator,
        "synthetic": source.synthetic,
    }
    return int(connection.execute(_OPEN, parameters).scalar_one())


def check_open(connection: Connection, batch: int) -> None:
    """Raises InputError if the batch was undone while its ingest still runs."""
    if connection.scalar(text("SELECT undone_at IS NOT NULL FROM ingest_batch WHERE id = :id"), {"id": batch}):
        raise InputError(f"batch {batch} was undone while it was taken in; nothing more of it is written")


def count(connection: Connection, batch: int, read: int, left_out: int, *, written: int) -> None:
    """Adds to what the batch has read, left out and written."""
    connection.execute(
        text(
            "UPDATE ingest_batch SET read = read + :read, left_out = left_out + :left_out, "
            "written = written + :written WHERE id = :id"
        ),
        {"id": batch, "read": read, "left_out": left_out, "written": written},
    )


def end_batch(store: Store, batch: int, notes: Sequence[str], *, left_out: int = 0) -> None:
    """Ends a batch with its notes; `left_out`: what was left out besides what was counted."""
    with store.begin() as connection:
        connection.execute(
            text(
                "UPDATE ingest_batch SET ended_at = now(), left_out = left_out + :left_out, "
                "notes = CAST(:notes AS jsonb) WHERE id = :id"
            ),
            {"id": batch, "left_out": left_out, "notes": json.dumps(notes)},
        )


def ended(store: Store, report: IngestReport, *, left_out: int = 0) -> IngestReport:
    """The report of an ingest that ends now, after ending its batch; `left_out` as for `end_batch`."""
    if report.batch is not None:
        end_batch(store, report.batch, report.notes, left_out=left_out)
    return report


def future_crops(store: Store, batch: int, after: datetime) -> list[str]:
    """A note, if crops of the batch have later times than `after`, as after a clock that was set back."""
    with store.begin() as connection:
        many, last = connection.execute(
            text("SELECT count(*), max(captured_at) FROM crop WHERE batch_id = :batch AND captured_at > :after"),
            {"batch": batch, "after": after},
        ).one()
    if not many:
        return []
    return [
        f"{many} crops of batch {batch} have times up to {last:%Y-%m-%d %H:%M:%S} UTC, in the future; if the clock is "
        f"right now, `urban-reid ingest undo {batch}` takes them back"
    ]


_SELECT = (
    "SELECT b.id, b.door, b.name, b.options, b.operator, b.begun_at, b.ended_at, b.read, b.left_out, b.written, "
    "b.notes, b.undone_at, b.undone_by, b.undo_reason, (SELECT count(*) FROM crop c WHERE c.batch_id = b.id "
    "AND c.withdrawn_at IS NULL) AS crops FROM ingest_batch b"
)


def batches(connection: Connection) -> list[Batch]:
    """All batches, the newest first."""
    return _read(connection, "ORDER BY b.id DESC", {})


def same_content(connection: Connection, source: Source) -> list[Batch]:
    """Batches, not undone, that took in the same content through the same door with other options."""
    return _read(
        connection,
        "WHERE b.content = :content AND b.door = :door AND b.digest <> :digest AND b.undone_at IS NULL ORDER BY b.id",
        {"content": source.content, "door": source.door, "digest": source.digest},
    )


def _read(connection: Connection, which: str, parameters: Mapping[str, Any]) -> list[Batch]:
    return [Batch(**row._mapping) for row in connection.execute(text(f"{_SELECT} {which}"), parameters)]
