"""A camera that is run: its feed, the process of its worker, what that said last, and what it asks of the host."""

import multiprocessing.context
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from pipeline.cameras.newest import Newest
from pipeline.cameras.outages import Change, Outages
from pipeline.cameras.worker import Report, Said, work
from schemas.feeds import Feed
from schemas.settings import Settings

#: Looks are counted over so long, seconds.
SLOW_OVER_S = 60.0
STARTING = Report("starting")


class Counted(NamedTuple):
    """So far, at a moment of the monotonic clock: looks made and left out, seconds of the core for embedding."""

    at_s: float
    looks: int
    missed: int
    embedding_s: float


@dataclass
class Running:
    """A feed with the detector that it uses, its worker and what that said last."""

    feed: Feed
    detector: str | None
    outages: Outages
    process: BaseProcess | None = None
    pipe: Connection | None = None
    newest: Newest | None = None
    report: Report = STARTING
    started_at: float = 0.0
    ends: int = 0
    inbox: deque[Change | Report | Said] = field(default_factory=deque)
    said: str = ""  # why it is down, as the log has it
    counted: deque[Counted] = field(default_factory=deque)  # over the last minute

    def start(self, context: multiprocessing.context.ForkServerContext, of: Settings) -> None:
        self.pipe, theirs = context.Pipe()
        ours, asking = context.Pipe()
        self.newest = Newest(ours)
        name = f"camera {self.feed.camera}"
        self.process = context.Process(target=work, args=(self.feed, of, theirs, asking), name=name)
        self.process.start()
        theirs.close()
        asking.close()
        self.started_at, self.report = time.monotonic(), STARTING
        self.counted.clear()

    def ask_to_end(self, *, kill: bool = False) -> None:
        """Asks the worker to end, or kills it. For any thread."""
        with suppress(ValueError):  # it was closed meanwhile
            if (process := self.process) is not None and process.is_alive():
                process.kill() if kill else process.terminate()

    def end(self, until: float) -> None:
        """Waits for the worker to end, and kills it at `until`, by the monotonic clock."""
        if self.process is None:
            return
        self.process.join(max(until - time.monotonic(), 0))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        self.process = None

    def count(self, now_s: float, embedding_s: float = 0.0) -> None:
        """Counts the looks of the last report; a feed that is not up makes none, and starts again at 0."""
        if self.report.state == "up":
            self.counted.append(Counted(now_s, self.report.looks, self.report.missed, embedding_s))
        else:
            self.counted.clear()

    @property
    def is_counted(self) -> bool:
        """Whether looks were counted for long enough to tell anything."""
        return bool(self.counted) and self.counted[-1].at_s - self.counted[0].at_s > SLOW_OVER_S / 2

    def looks_and_missed(self) -> tuple[int, int]:
        """Looks that were made and left out while they were counted; none while that is too short to tell."""
        if not self.is_counted:
            return 0, 0
        first, last = self.counted[0], self.counted[-1]
        return last.looks - first.looks, last.missed - first.missed

    def load(self, look_s: float) -> float:
        """Looks a second that it asks for, with those that were left out and with what its embedding costs in looks."""
        first, last = self.counted[0], self.counted[-1]
        looks = sum(self.looks_and_missed()) + (last.embedding_s - first.embedding_s) / look_s
        return looks / (last.at_s - first.at_s)

    def read(self) -> None:
        try:
            while self.pipe is not None and self.pipe.poll():
                self.inbox.append(self.pipe.recv())
        except (EOFError, OSError):
            self.pipe = None
