"""Checks of the data directory that need no database: is it there, is there room, who can open it, which files grew."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipeline.doctor.check import Check, ok, to_do, unknown
from pipeline.doctor.permissions import in_words, open_to_others
from pipeline.store.embedded_home import UNFINISHED
from pipeline.store.kept_dumps import KEPT_DAYS, kept
from schemas.settings import Settings
from schemas.text import byte_size

#: Less room than this, bytes or as a share of the disk, is too little to go on with.
_LEAST_FREE, _LEAST_SHARE = 2 * 2**30, 0.05
_LARGE_LOG = 100 * 2**20


def check_folder(settings: Settings) -> Iterator[Check]:
    home = settings.home
    if not home.is_dir():
        yield to_do(
            "home",
            f"there is no data directory {home}" if not home.exists() else f"{home} is no folder",
            "set URBAN_REID_HOME to the data directory; the first command that writes makes a new one",
        )
        return
    if os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield ok("home", f"{home} can be read and written")
    else:
        yield to_do("home", f"{home} cannot be read and written", "give this user its files, or run as their owner")
        return
    if (home / UNFINISHED).exists():
        yield to_do("restore", "a restore into it is not finished", "run the same `urban-reid db restore` again")
    yield _permissions(home)
    yield _disk(home)
    yield _logs(home)
    yield from _dumps(home)


def _permissions(home: Path) -> Check:
    try:
        found = open_to_others(home)
    except OSError as error:
        return unknown("permissions", f"{error.filename}: {error.strerror}")
    if not found:
        return ok("permissions", "no other user can open the data directory's files")
    return to_do("permissions", f"other users can open {in_words(found, home)}", "run `urban-reid doctor --fix`")


def _disk(home: Path) -> Check:
    room, inodes = shutil.disk_usage(home), os.statvfs(home)
    said = f"{byte_size(room.free)} of {byte_size(room.total)} are free"
    if room.free < max(_LEAST_FREE, _LEAST_SHARE * room.total):
        return to_do("disk", said, "free some, or move the data directory to a larger disk")
    if inodes.f_files and inodes.f_favail < _LEAST_SHARE * inodes.f_files:
        return to_do(
            "disk", f"{inodes.f_favail} more files can be made", "move the data directory to another file system"
        )
    return ok("disk", said)


def _dumps(home: Path) -> Iterator[Check]:
    if dumps := kept(home):
        oldest = datetime.fromtimestamp(dumps[0].stat().st_mtime, UTC)
        yield ok(
            "dumps",
            f"{len(dumps)} of before upgrades, the oldest of {oldest:%Y-%m-%d}, which hold also what has been erased "
            f"since; each is removed after {KEPT_DAYS} days",
        )


def _logs(home: Path) -> Check:
    found = {path: path.stat().st_size for path in (*home.glob("*.log"), *home.glob("*/*.log")) if path.is_file()}
    large = [path for path, taken in found.items() if taken > _LARGE_LOG]
    said = f"{len(found)} log files of {byte_size(sum(found.values()))}"
    if large:
        return to_do("logs", f"{said}: {', '.join(map(str, large))}", "end `urban-reid up` and remove the large ones")
    return ok("logs", said)
