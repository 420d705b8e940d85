"""What commands print: JSON, or text and tables, on stdout, and messages on stderr.

Names come from files that anyone may have written: `shown` makes them safe to print, and everything that prints a name
calls it.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from schemas.errors import UrbanReidError
from schemas.settings import Settings
from schemas.text import one_line

#: Where there is no terminal nothing is wrapped or cut: a table is as wide as its cells.
_UNLIMITED_WIDTH = 100_000


class _Stdout(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """As Console.print. Raises UrbanReidError when stdout cannot be written; BrokenPipeError when nobody reads."""
        with _writing_stdout():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Stderr(Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads the messages; the work goes on."""


class Table(RichTable):
    """A table whose long words are continued on the next line where the terminal is too narrow, never cut."""

    def add_column(self, *arguments: Any, **options: Any) -> None:
        super().add_column(*arguments, **({"overflow": "fold"} | options))


def out() -> Console:
    return _Stdout(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED_WIDTH)


def err() -> Console:
    return _Stderr(stderr=True, highlight=False)


def shown(text: object) -> str:
    """`text` on one line, without control characters and with rich's markup escaped."""
    return escape(one_line(text))


def print_json(found: dict[str, Any]) -> None:
    """Prints one JSON object on one line of stdout, and nothing else."""
    line = json.dumps(found, ensure_ascii=False, default=str)
    try:
        line.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:  # half a character in a file's name, or a terminal without Unicode
        line = json.dumps(found, default=str)
    with _writing_stdout():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def say(text: str) -> None:
    """Prints a line on stderr. May contain markup; names go through `shown`."""
    with suppress(OSError):
        err().print(text, soft_wrap=True)


def show_handed_over(handed: dict[str, Any], as_json: bool) -> None:
    """Says where the run can be seen that was handed over to `up` or to workers; `handed`: flow_run and url."""
    if as_json:
        print_json(handed)
    else:
        out().print(f"handed over: {shown(handed['url'])}", soft_wrap=True)


def warn_if_open(settings: Settings, tell: Callable[[str], None] = lambda line: say(shown(line))) -> None:
    """Tells in one line, on stderr unless given, that other users of this machine can open the data directory."""
    from pipeline.doctor.permissions import warning

    if line := warning(settings.home):
        tell(f"warning: {line}")


@contextmanager
def _writing_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UrbanReidError(f"standard output: cannot be written: {error.strerror}") from None
