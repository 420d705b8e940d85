"""What left the city, and where it was written: so that an erasure reaches it there."""

import os
from pathlib import Path

from sqlalchemy import Connection, text

_RECORD = text("INSERT INTO written_file (kind, path, unit, of_row) VALUES (:kind, :path, :unit, :of_row)")


def record_written(
    connection: Connection, kind: str, path: Path, *, unit: str | None = None, of_row: object = None
) -> None:
    """Records that a file or folder `path` is about to be written. Call it before, in a transaction of its own.

    kind: report, assignments, subject, lead, standing, evidence, picture, audit.
    of_row: the id of the request, lead or standing search that it is about.
    """
    where = os.fsencode(path.absolute()).decode(errors="backslashreplace")
    row = None if of_row is None else str(of_row)
    connection.execute(_RECORD, {"kind": kind, "path": where, "unit": unit, "of_row": row})
