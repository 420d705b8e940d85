"""How a command reports an error: one line on stderr, or one JSON object."""

import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from schemas.disk import make_home
from schemas.errors import HomeError, InputError, UrbanReidError
from schemas.settings import settings
from schemas.text import one_line

#: Longer messages are cut in the middle, characters.
_LONGEST_LINE = 1000
#: Errors by which the system refuses a whole path or disk, not one file of ours that should be there.
_REFUSALS = frozenset(
    (errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM, errno.EROFS)
)


def report_error(kind: str, message: str, as_json: bool) -> None:
    """Prints an error on stderr: one line, or with `as_json` one object {error: kind, message}."""
    line = one_line(message)
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    if as_json:
        line = json.dumps({"error": kind, "message": line})
    elif kind != "Interrupted":
        line = f"error: {line}"
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def refused_path(error: OSError, words: Sequence[str]) -> UrbanReidError | None:
    """An error of the system about a path of the command line `words` or about the data directory, in our terms.

    None where it is about another file, which a command should have expected.
    """
    try:
        here = f"{Path.cwd()}/"
    except OSError:
        return InputError("the working directory does not exist any more: change to another one")
    if not isinstance(error.filename, str):
        return None
    message = f"{error.filename[:200]}: {error.strerror}"
    refused = _absolute(here, error.filename)
    for path in (path for word in words for path in (word, word.rpartition(":")[2]) if path):  # LAYOUT:DIR has one too
        if _one_above_the_other(refused, _absolute(here, path)):
            return InputError(message)
    with contextlib.suppress(UrbanReidError):
        if error.errno in _REFUSALS and _one_above_the_other(refused, _absolute(here, str(settings().home))):
            return HomeError(f"{message}; the data directory is URBAN_REID_HOME={str(settings().home)[:200]}")
    return None


def _absolute(here: str, path: str) -> str:
    return os.path.normpath(path if path.startswith("/") else here + path)


def _one_above_the_other(left: str, right: str) -> bool:
    return os.path.commonpath((left, right)) in (left, right)


def in_words(error: Exception) -> str:
    """What to say of the current error: its message, or of one that nobody expected where its traceback is too."""
    if isinstance(error, UrbanReidError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}; {keep_traceback()}"


def keep_traceback() -> str:
    """Appends the traceback of the current error to errors.log in the data directory. Returns where it is, in words."""
    try:
        log = settings().home / "errors.log"
        make_home(log.parent)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[1:2])}\n{traceback.format_exc()}\n")
    except (OSError, UrbanReidError):
        return "its traceback could not be kept, because the data directory cannot be written"
    return f"its traceback is in {log}"
