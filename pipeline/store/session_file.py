"""The token of the command line's session: HOME/session.json, which only its owner can read."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas import disk
from schemas.errors import HomeError
from schemas.settings import Settings

FILE = "session.json"


class _Session(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    token: str = Field(pattern="^[0-9a-f]{64}$")


def session_token(settings: Settings) -> str:
    """The token of the session that this program works under; empty if nobody is signed in. Raises HomeError."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    path = settings.home / FILE
    try:
        return _Session.model_validate_json(path.read_bytes()).token
    except FileNotFoundError:
        return ""
    except (IsADirectoryError, ValidationError):
        raise _damaged(path) from None
    except PermissionError as error:
        if not os.access(settings.home, os.X_OK):  # which whoever opens the home tells of
            raise
        raise HomeError(f"{path} cannot be read: {error.strerror}; it belongs to whoever signed in here") from None


def keep_token(home: Path, token: str) -> None:
    """Replaces the file, whole or not at all."""
    try:
        disk.write_whole(home / FILE, _Session(token=token).model_dump_json(), mode=0o600, sync=True)
    except IsADirectoryError:
        raise _damaged(home / FILE) from None


def forget_token(home: Path) -> None:
    try:
        (home / FILE).unlink(missing_ok=True)
    except IsADirectoryError:
        raise _damaged(home / FILE) from None


def _damaged(path: Path) -> HomeError:
    return HomeError(f"{path} is damaged; remove it, and sign in again with `urban-reid login`")
