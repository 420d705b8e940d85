"""Dumps that the program makes by itself before it changes a database: HOME/backups/WHAT-TIME.dump.

They hold what the database held, also what has been erased from it since. So they are closed to others like it, only
the newest few are kept, and none for longer than KEPT_DAYS.
"""

import logging
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store.dump import Database, database_bytes, write_dump
from schemas.errors import HomeError
from schemas.text import byte_size

#: Dumps that are kept, and for how long: whoever opens the home removes older ones.
_KEPT, KEPT_DAYS = 3, 30
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
    check_room(home, round(_ROOM * size), f"the database, which takes {byte_size(size)}, is dumped {why}")
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{what}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.dump"
    _log.warning("the database, which takes %s, is dumped %s, into %s", byte_size(size), why, path)
    write_dump(of, path)
    for old in [*kept(home)[:-_KEPT], *folder.glob("*.partial")]:
        old.unlink()
    return path


def kept(home: Path) -> list[Path]:
    """The dumps that there are, the oldest first."""
    return sorted((home / "backups").glob("*.dump"), key=lambda one: one.stat().st_mtime)


def remove_old(home: Path) -> None:
    """Removes the dumps that are older than KEPT_DAYS."""
    for path in kept(home):
        if time.time() - path.stat().st_mtime > KEPT_DAYS * 24 * 3600:
            path.unlink(missing_ok=True)


def check_room(home: Path, needed: int, what: str) -> None:
    """Raises HomeError if the home's disk has less than `needed` bytes free; `what` is planned."""
    free = shutil.disk_usage(home).free
    if free < needed:
        raise HomeError(
            f"{what}: that needs about {byte_size(needed)}, and the disk of {home} has {byte_size(free)} free; "
            "free some and run the command again. Nothing was changed"
        )
