"""Passwords of the embedded server's roles, each in a file of its own that only this user can read.

HOME/postgres.json            urban_reid_app's, and the folder of the server's socket if it is elsewhere
HOME/postgres.worker.json     urban_reid_worker's
HOME/postgres.signin.json     urban_reid_signin's
HOME/postgres.owner.json      the owner's; migrations and backups alone read it
HOME/postgres.superuser.json  the superuser's; commands of `urban-reid db` alone read it, and what makes missing roles

A command that takes in, resolves or searches needs the first three only: the others may be kept elsewhere meanwhile.
"""

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pipeline.store import roles
from schemas import disk
from schemas.errors import HomeError
from schemas.settings import Frozen

STATE = "postgres.json"
#: In the order in which they are written: with the last one, all are there.
FILES = {
    roles.SUPERUSER: "postgres.superuser.json",
    roles.OWNER: "postgres.owner.json",
    roles.WORKER: "postgres.worker.json",
    roles.SIGNIN: "postgres.signin.json",
    roles.APP: STATE,
}

Content = TypeVar("Content", bound=Frozen)


class SocketFolder(Frozen):
    """The folder of the server's socket where it is not the data's own. A copied home still names the home it was."""

    home: str
    folder: str


class ServerState(Frozen):
    """The content of postgres.json."""

    password: str  # of the program's role
    socket: SocketFolder | None


class _Password(Frozen):
    password: str


class _EarlierState(Frozen):
    """postgres.json up to version 0.2."""

    passwords: dict[str, str]  # by role
    socket: SocketFolder | None


def new_passwords(of: Iterable[str] = tuple(FILES)) -> dict[str, str]:
    """A password for each role."""
    return {role: secrets.token_urlsafe(24) for role in of}


def roles_without_file(home: Path) -> list[str]:
    """Roles that a home made by an earlier version does not have yet."""
    return [role for role in (roles.WORKER, roles.SIGNIN) if not (home / FILES[role]).exists()]


def read_password(home: Path, role: str) -> str:
    """Raises HomeError if the role's file is missing or damaged."""
    return read_state(home).password if role == roles.APP else _read(home, role, _Password).password


def read_state(home: Path) -> ServerState:
    """Raises HomeError if postgres.json is missing or damaged."""
    return _read(home, roles.APP, ServerState)


def write_state(folder: Path, state: ServerState) -> None:
    """Replaces postgres.json in `folder`, whole or not at all, readable by this user only."""
    disk.write_whole(folder / STATE, state.model_dump_json(), mode=0o600, sync=True)


def write_passwords(folder: Path, passwords: Mapping[str, str], socket: SocketFolder | None = None) -> None:
    """Writes the files of these roles, postgres.json last."""
    for role, name in FILES.items():
        if role != roles.APP and role in passwords:
            content = _Password(password=passwords[role]).model_dump_json()
            disk.write_whole(folder / name, content, mode=0o600, sync=True)
    if roles.APP in passwords:
        write_state(folder, ServerState(password=passwords[roles.APP], socket=socket))


def settle_passwords(home: Path) -> None:
    """Puts the passwords where they stay. Goes on where a killed program left off; called under the home's lock.

    Those of a new database lie within it until it has got its name. Up to version 0.2 all lay in postgres.json, which
    keeps them until the others have files of their own.
    """
    for name in FILES.values():
        within = home / "postgres" / name
        if within.exists():
            within.replace(home / name)
    try:
        earlier = _EarlierState.model_validate_json((home / STATE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return
    if {roles.SUPERUSER, roles.OWNER, roles.APP} <= earlier.passwords.keys():
        write_passwords(home, earlier.passwords, earlier.socket)


def lost_password(home: Path, role: str, what: str) -> HomeError:
    return HomeError(
        f"{home / FILES[role]}, which holds the database's password of {role}, {what}; restore it from a backup, "
        "or run `urban-reid db reset-passwords`"
    )


def _read(home: Path, role: str, kind: type[Content]) -> Content:
    try:
        return kind.model_validate_json((home / FILES[role]).read_bytes())
    except FileNotFoundError:
        raise lost_password(home, role, "is missing") from None
    except ValidationError:
        raise lost_password(home, role, "is damaged") from None
