"""Dumps that the program makes by itself before it changes a database: HOME/backups/WHAT-TIME.dump.

They hold what the database held, so they are closed to others like it, and only the newest few are kept.
"""

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store.dump import Database, database_bytes, write_dump
from schemas.errors import HomeError

#: Dumps that are kept.
_KEPT = 3
#: Room that is wanted, for the dump and for what is written afterwards, relative to the size of the database.
_ROOM = 2.0

_log = logging.getLogger(__name__)


def keep_dump(home: Path, of: Database, what: str, why: str) -> Path:
    """Dumps the embedded database of `home` and removes the oldest of such dumps; says so in one line.

    `what` begins the file's name, `why` ends the line. Raises HomeError, before anything is done, without enough room;
    StoreError, OSError.
    """
    folder = home / "backups"
    size = database_bytes(of)
    check_room(home, round(_ROOM * size), f"the database, which takes {size / 1e6:.0f} MB, is dumped {why}")
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.dump"
    _log.warning("the database, which takes %.0f MB, is dumped %s, into %s", size / 1e6, why, path)
    write_dump(of, path)
    earlier = sorted(folder.glob("*.dump"), key=lambda one: one.stat().st_mtime)
    for old in [*earlier[:-_KEPT], *folder.glob("*.partial")]:
        old.unlink()
    return path


def check_room(home: Path, needed: int, what: str) -> None:
    """Raises HomeError if the home's disk has less than `needed` bytes free; `what` is planned."""
    free = shutil.disk_usage(home).free
    if free < needed:
        raise HomeError(
            f"{what}: that needs about {needed / 1e6:.0f} MB, and the disk of {home} has {free / 1e6:.0f} MB free; "
            "free some and run the command again. Nothing was changed"
        )
