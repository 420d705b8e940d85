"""Passwords from the terminal, unseen, or from stdin, a line each; never from a command line, which others can see."""

import sys
from getpass import getpass

from schemas.errors import InputError


def ask(prompt: str = "password: ") -> str:
    """One password. Raises InputError."""
    return getpass(prompt) if sys.stdin.isatty() else _lines(1)[0]


def ask_new() -> str:
    """A new password, typed twice at a terminal. Raises InputError."""
    return _twice() if sys.stdin.isatty() else _lines(1)[0]


def ask_old_and_new() -> tuple[str, str]:
    """The password of now, and a new one. Raises InputError."""
    if sys.stdin.isatty():
        return getpass("password of now: "), _twice()
    old, new = _lines(2)
    return old, new


def _twice() -> str:
    new = getpass("new password: ")
    if getpass("the same again: ") != new:
        raise InputError("the two passwords differ; nothing was changed")
    return new


def _lines(count: int) -> list[str]:
    lines = sys.stdin.read(10_000).splitlines()
    if len(lines) != count:
        what = "a password on one line" if count == 1 else "the password of now and the new one, a line each"
        raise InputError(f"stdin: must hold {what}, and nothing else")
    return lines
