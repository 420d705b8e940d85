"""What commands print: JSON or something to look at on stdout, progress and messages on stderr.

Names come from files that anyone may have written: `shown` is the one door from them to the terminal.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.text import one_line


def out() -> Console:
    return Console(highlight=False)


def err() -> Console:
    return Console(stderr=True, highlight=False)


def shown(text: object) -> str:
    """On one line, with nothing left that rich would take for markup: no name moves the cursor or colors a line."""
    return escape(one_line(text))


def print_json(found: dict[str, Any]) -> None:
    """One JSON object on stdout, and nothing else."""
    sys.stdout.write(json.dumps(found, ensure_ascii=False, default=str) + "\n")


def say(text: str) -> None:
    """A line on stderr, such as progress without a terminal or a warning. May hold markup; names go through `shown`."""
    err().print(text, soft_wrap=True)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, only on a terminal; called with (done, total), where total 0 means not known."""
    with stages() as tell:
        tell(label, 0, 0)
        yield lambda done, total: tell(label, done, total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """As `progress`, for work whose label changes: called with (label, done, total)."""
    console = err()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda label, done, total: bar.update(task, description=label, completed=done, total=total or None)
