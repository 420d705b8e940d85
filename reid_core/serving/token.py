"""The token that requests to `urban-reid core` carry: of the settings, or in HOME/core-token, a file of mode 0600."""

import secrets
import stat
from pathlib import Path

from schemas.disk import write_whole
from schemas.errors import HomeError
from schemas.settings import Settings

FILE = "core-token"


def core_token(settings: Settings) -> str:
    """The token of the settings, or of the home's file. Raises HomeError where there is none that can be used."""
    if settings.core_token is not None:
        return settings.core_token.get_secret_value()
    path = settings.home / FILE
    if not path.exists():
        raise HomeError(
            f"there is no token for the core at {settings.core_url}: copy {FILE} from the data directory of its host "
            f"to {path}, or set URBAN_REID_CORE_TOKEN"
        )
    return secret_of(path)


def made_token(settings: Settings) -> str:
    """As `core_token`, for the host that serves: makes the file where there is no token."""
    if settings.core_token is None:
        make_secret(settings.home / FILE)
    return core_token(settings)


def make_secret(path: Path) -> None:
    """Makes a file with a secret that only its owner reads, unless it is there. Raises HomeError."""
    try:
        if not path.exists():
            write_whole(path, secrets.token_urlsafe(32), mode=0o600, sync=True)
    except OSError as error:
        raise HomeError(f"{path} cannot be written: {error.strerror}") from None


def secret_of(path: Path) -> str:
    """The secret in a file. Raises HomeError for one that others may read, or that holds none."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise HomeError(
                f"{path} is open to other users; `chmod 600 {path}`, and change the secret if others use here"
            )
        secret = path.read_text(errors="replace").strip()
    except OSError as error:
        raise HomeError(f"{path} cannot be read: {error.strerror}") from None
    if len(secret) < 32 or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise HomeError(f"{path} holds no secret of 32 characters or more on one line; remove it, and it is made anew")
    return secret
