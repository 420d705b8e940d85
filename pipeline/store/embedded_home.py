"""What the embedded server keeps in the data directory beside its data.

HOME/postgres.json       passwords of the three roles, and where the socket is if elsewhere (0600)
HOME/postgres.lock       held alone while somebody creates, starts or stops the server
HOME/postgres.holders    each user of the server holds a share of it; who gets it alone may stop the server

The kernel drops the locks of a killed process, so nobody keeps the server alive wrongly.
"""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.store.embedded_programs import Account
from schemas.errors import HomeError


@contextmanager
def home_errors(home: Path) -> Iterator[None]:
    """Turns what the file system refuses into one HomeError."""
    try:
        yield
    except OSError as error:
        at = f" ({error.filename})" if error.filename and str(error.filename) != str(home) else ""
        raise HomeError(
            f"the data directory {home} cannot be used: {error.strerror or error}{at}; "
            "set URBAN_REID_HOME to a folder that you may write and that has room"
        ) from error


def prepare_home(home: Path, account: Account) -> None:
    """Makes the folder, closed to others, and sees that `account` can pass through it. Raises HomeError."""
    if home.exists() and not home.is_dir():
        raise HomeError(f"the data directory {home} is a file; set URBAN_REID_HOME to a folder")
    home.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    if not account.is_other:
        return
    for parent in reversed(home.parents):
        if not account.reaches(parent):
            raise HomeError(
                f"{parent} is closed to the system user {account.name}, which runs the database because PostgreSQL "
                "refuses root; set URBAN_REID_HOME to a folder outside it"
            )
    if not account.reaches(home):  # our own folder: let that user pass, and nobody else
        os.chown(home, -1, account.gid)
        home.chmod(stat.S_IMODE(home.stat().st_mode) | stat.S_IXGRP)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Alone with creating, starting and stopping."""
    descriptor = os.open(home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def share(home: Path) -> int:
    """A share of the holders' lock, under `locked`; closing the descriptor gives it back."""
    descriptor = os.open(home / "postgres.holders", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def unshared(home: Path) -> bool:
    """Whether nobody holds a share; under `locked` that stays so."""
    descriptor = os.open(home / "postgres.holders", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def read_state(home: Path) -> dict[str, Any]:
    """{"passwords": {role: password}, "socket": None, or {"home", "folder"} where it does not lie with the data}."""
    state: dict[str, Any] = json.loads((home / "postgres.json").read_text())
    return state


def write_state(home: Path, state: dict[str, Any]) -> None:
    """Replaces the state, whole or not at all, readable by ourselves alone."""
    new = home / "postgres.json.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(home / "postgres.json")
