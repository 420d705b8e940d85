"""What other users of this machine may do in the data directory, and closing it to them.

The user that runs root's database may pass through the data directory, and read copied programs, by their group.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.store.embedded_programs import COPIED, Account, account_of
from schemas.errors import HomeError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def open_to_others(home: Path) -> list[Path]:
    """The data directory and what lies directly in it, as far as other users can read, change or lock it.

    Looks no deeper. Empty where there is no data directory.
    """
    if not home.is_dir():
        return []
    account = _server(home)
    rights = _rights_of_others(home, home, account)
    found = [home] if rights & ~(stat.S_IXGRP | stat.S_IXOTH) else []
    if rights or account.is_other:  # others may pass
        found += [path for path in sorted(home.iterdir()) if path.exists() and _rights_of_others(path, home, account)]
    return found


def close_to_others(home: Path) -> int:
    """Takes other users' rights from the data directory and all in it. Returns how many files and folders it closed.

    Links in it are not followed, unless they lie directly in the data directory and lead to a folder. Raises HomeError
    for what is not ours to change.
    """
    if not home.is_dir():
        return 0
    account, closed = _server(home), 0
    for path in _all(home):
        try:
            if _rights_of_others(path, home, account):
                mode = stat.S_IMODE(path.stat().st_mode)
                kept = 0
                if account.is_other and _is_for_server(path, home):
                    os.chown(path, -1, account.gid)
                    kept = (mode & stat.S_IRWXU) >> 3 & (stat.S_IXGRP if path == home else stat.S_IRGRP | stat.S_IXGRP)
                path.chmod(mode & stat.S_IRWXU | kept)
                closed += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HomeError(
                f"{path}: cannot be closed to other users: {error.strerror}; its owner or root can"
            ) from None
    return closed


def warning(home: Path) -> str | None:
    """One line for an operator whose data other users can read; None if they cannot."""
    try:
        found = open_to_others(home)
    except OSError:
        return None  # the command itself says what is wrong with the folder
    if not found:
        return None
    said = in_words(found, home)
    return f"other users of this machine can open {said} in {home}: close it with `urban-reid doctor --fix`"


def in_words(found: Sequence[Path], home: Path) -> str:
    """The first of `found`, by name."""
    names = ["the folder itself" if path == home else path.name for path in found]
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _server(home: Path) -> Account:
    """The user that runs the home's embedded database; this user where there is none."""
    return account_of(home) if (home / "postgres" / "PG_VERSION").exists() else Account(os.geteuid(), os.getegid())


def _rights_of_others(path: Path, home: Path, account: Account) -> int:
    """The rights that users have who are neither the path's owner nor, where it needs them, the server's group."""
    found = path.stat()
    allowed = 0
    if account.is_other and _is_for_server(path, home) and found.st_gid == account.gid:
        allowed = stat.S_IXGRP if path == home else stat.S_IRGRP | stat.S_IXGRP
    return found.st_mode & _OTHERS & ~allowed


def _is_for_server(path: Path, home: Path) -> bool:
    return path == home or path.is_relative_to(home / COPIED)


def _all(home: Path) -> Iterator[Path]:
    """The folder and everything in it but links and sockets of other programs."""
    yield home
    for top in sorted(home.iterdir()):
        if not top.is_symlink():
            yield top
        if top.is_dir():
            if top.is_symlink():
                yield top.resolve()
            for folder, folders, files in os.walk(top.resolve()):
                for name in (*folders, *files):
                    path = Path(folder) / name
                    if not path.is_symlink():
                        yield path
