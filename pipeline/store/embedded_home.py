"""What the embedded server keeps in the data directory beside its data.

HOME/postgres*.json     passwords; see pipeline.store.embedded_secrets
HOME/postgres.lock      locked by a program while it creates, starts or stops the server
HOME/postgres.holders   locked shared by every program that uses the server; who gets it alone may stop the server

The kernel releases the locks of a killed process, so a killed program does not keep the server alive.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from pipeline.store.embedded_programs import Account
from pipeline.store.embedded_secrets import FILES
from schemas import disk
from schemas.errors import HomeError

#: An upgrade of PostgreSQL's version: the new data's home, a file in it once they are whole, and the earlier data.
NEXT, WHOLE, BEFORE = "postgres.next", "whole", "postgres.before"
#: Names the backup while one is being restored into the home.
UNFINISHED = "restore.json"


@contextmanager
def home_errors(home: Path) -> Iterator[None]:
    """Raises HomeError for an OSError."""
    try:
        yield
    except OSError as error:
        at = f" ({error.filename})" if error.filename and str(error.filename) != str(home) else ""
        raise HomeError(
            f"the data directory {home} cannot be used: {error.strerror or error}{at}; "
            "set URBAN_REID_HOME to a folder that you may write and that has room"
        ) from error


def resolved(home: Path) -> Path:
    """The home's absolute path without symbolic links. Raises HomeError for one that PostgreSQL cannot use."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(home)):
        raise HomeError(
            f"the path of the data directory, {str(home)!r}, holds control characters or is not UTF-8, which "
            "PostgreSQL cannot use; set URBAN_REID_HOME to another path"
        )
    return Path(os.path.realpath(home))


def prepare_home(home: Path, account: Account) -> None:
    """Creates the folder, closed to others, and lets `account` pass through it. Raises HomeError."""
    if home.exists() and not home.is_dir():
        raise HomeError(f"the data directory {home} is a file; set URBAN_REID_HOME to a folder")
    disk.make_home(home)
    if not account.is_other:
        return
    for parent in reversed(home.parents):
        if not account.reaches(parent):
            raise HomeError(
                f"{parent} is closed to the system user {account.name}, which runs the database because PostgreSQL "
                "refuses root; set URBAN_REID_HOME to a folder outside it"
            )
    if not account.reaches(home):  # our own folder: let that user pass, and no other
        os.chown(home, -1, account.gid)
        home.chmod(stat.S_IMODE(home.stat().st_mode) | stat.S_IXGRP)


def exists(home: Path) -> bool:
    """Whether the home has a database, running or not.

    Raises HomeError where it had one that is missing now, such as a link or a mount without its target: a new database
    must not take its place.
    """
    data = home / "postgres"
    with home_errors(home):
        if (data / "PG_VERSION").exists() or (home / NEXT / WHOLE).exists():
            return True
        left = [
            path.name
            for path in (data, *(home / name for name in FILES.values()))
            if path.is_symlink() or path.exists()
        ]
        is_empty_folder = data.is_dir() and not data.is_symlink() and not any(data.iterdir())
    if not left or (left == [data.name] and is_empty_folder):
        return False
    raise HomeError(
        f"the database of {home} is missing: there is {' and '.join(left)}, but no database in {data}; bring it back "
        f"(is a disk not mounted?), or move {' and '.join(left)} away to start with an empty database"
    )


def check_restored(home: Path) -> None:
    """Raises HomeError while a restore into the home has not finished."""
    if (home / UNFINISHED).exists():
        raise HomeError(
            f"a restore into {home} is not finished; wait for it, or run `urban-reid db restore DIR` again, "
            "which goes on where it ended"
        )


def locked(home: Path) -> AbstractContextManager[None]:
    """Holds the lock for creating, starting and stopping."""
    return disk.locked(home / "postgres.lock")


def share(home: Path) -> IO[bytes]:
    """A share of the holders' lock; closing the file returns it. Call it under `locked`."""
    holder = disk.open_lock(home / "postgres.holders")
    disk.lock(holder, shared=True)
    return holder


def unshared(home: Path) -> bool:
    """Whether no program holds a share; under `locked` that stays so."""
    with disk.open_lock(home / "postgres.holders") as file:
        return disk.try_lock(file)
