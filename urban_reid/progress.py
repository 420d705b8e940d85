"""Progress of long work, on stderr: a bar on a terminal, elsewhere a line now and then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from urban_reid.output import err, say, shown

#: Told with (label, done, total); total 0 means not known.
Tell = Callable[[str, int, int], None]

#: Pauses between lines: at first this long, then a tenth of the time so far, within these bounds.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 60.0


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows progress on stderr. Yields a function to call with (done, total); total 0 means not known."""
    with stages() as tell:
        tell(label, 0, 0)
        yield lambda done, total: tell(label, done, total)


@contextmanager
def stages() -> Iterator[Tell]:
    """As `progress`, for work in stages: yields a function to call with (label, done, total).

    A bar on a terminal; elsewhere a line now and then, with an estimate of the time that is left.
    """
    console = err()
    with _bar(console) if console.is_terminal else _lines() as tell:
        yield tell


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """As `stages`, for work that describes each step when it begins: yields a function that prints the description."""
    with stages() as tell:

        def begin(description: str) -> None:
            say(shown(description))
            tell(description, 0, 0)

        yield begin


@contextmanager
def _bar(console: Console) -> Iterator[Tell]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda label, done, total: bar.update(task, description=label, completed=done, total=total or None)


@contextmanager
def _lines() -> Iterator[Tell]:
    estimate = Estimate(time.monotonic)
    ended = threading.Event()

    def speak() -> None:
        pause_s = _SHORTEST_PAUSE_S
        while not ended.wait(pause_s):
            say(shown(estimate.line()))
            pause_s = min(max(estimate.elapsed_s() / 10, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield estimate
    finally:
        ended.set()
        speaker.join()


class Estimate:
    """The newest progress of work in stages, as a line of text. `clock`: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        #: Label, done and total, now and when this stage was first heard of; and when that was.
        self._now = ("at work", 0, 0)
        self._first_done, self._first_at = 0, self._began

    def __call__(self, label: str, done: int, total: int) -> None:
        before, done_before, _ = self._now
        if label != before or done < done_before:
            self._first_done, self._first_at = done, self._clock()
        self._now = (label, done, total)

    def elapsed_s(self) -> float:
        return self._clock() - self._began

    def line(self) -> str:
        """Such as "units resolved: 12 of 72, about 40 s left"."""
        label, done, total = self._now
        counts = f"{done} of {total}, " if total else f"{done}, " if done else ""
        made = done - self._first_done
        if total and made > 0:
            left_s = (self._clock() - self._first_at) * (total - done) / made
            return f"{label}: {counts}about {_duration(left_s)} left"
        return f"{label}: {counts}{_duration(self.elapsed_s())} so far"


def _duration(seconds: float) -> str:
    """Two figures: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
