"""The resolver: the process of `urban-reid up` that resolves windows soon after they have closed.

`python -P -m urban_reid.resolver`. One process that stays: a run of it begins within a second, where one that Prefect's
runner starts takes ten to twenty. Its runs are flow runs as those of `urban-reid resolve`, with the tag "windows". With
`URBAN_REID_FLOWS=workers` it hands them over to `urban-reid worker`, those of several districts at a time.

Of several on one database, on several hosts, one is at work, and the others wait for its lock.
"""

import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from schemas.disk import keep_private
from schemas.errors import UrbanReidError
from schemas.logs import begin_logging
from schemas.parameters import ResolveParameters
from schemas.settings import settings
from schemas.text import one_line
from urban_reid.errors import in_words

if TYPE_CHECKING:
    from pipeline.store import Store
    from urban_reid.handed_over import HandedOver

    #: A resolve that has ended: when it began and ended, by the monotonic clock.
    Ended = tuple[ResolveParameters, float, float]

#: Held by the resolver that is at work; the name is in what the others say.
_LOCK = "the city's resolver"
_LOOK_EVERY_S = 1.0
#: How often pictures that were gone are looked for.
_PICTURES_EVERY_S = 300.0
#: How often a checkpoint of the audit is signed.
_CHECKPOINT_EVERY_S = 3_600.0
#: How often urgent use that nobody approved in time is locked.
_LOCK_EVERY_S = 60.0
#: How often it is looked for what has been kept for as long as it may be, and at most how many batches go at a time.
_RETENTION_EVERY_S = 3_600.0
_RETENTION_BATCHES = 4
_AFTER_ERROR_S = 10.0


def main() -> int:
    """Looks and resolves until SIGTERM or SIGINT."""
    keep_private()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        begin_logging(settings().log, "resolver")
        _watch()
    except KeyboardInterrupt:
        # Threads may still be at work on a window; what they have not committed is rolled back, as after a kill.
        os._exit(0)
    except UrbanReidError as error:
        _say(error)
        return error.exit_code
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch() -> None:
    from pipeline.standing.watch import watching
    from pipeline.store import Store
    from pipeline.store.locks import unit_lock

    with Store.open(settings(), "urban-reid resolver") as store, _workers() as workers:
        turns = _Turns(store, workers)
        while True:
            try:
                with unit_lock(store, _LOCK, _say) as check_lock, watching(store, _say):
                    while True:
                        check_lock()
                        turns.take()
                        time.sleep(_LOOK_EVERY_S)
            except UrbanReidError as error:  # such as a database that is started again
                _say(error)
                time.sleep(_AFTER_ERROR_S)


@dataclass
class _Chore:
    """What is done again and again. do: returns whether more of it is to be done at once, after what else is due."""

    what: str
    every_s: float
    do: Callable[[], bool]
    due_s: float = -math.inf  # by the monotonic clock
    fault: str = ""

    def look(self) -> None:
        """Does it if it is due. A fault is said once, and keeps nothing else from being done."""
        if time.monotonic() < self.due_s:
            return
        self.due_s = time.monotonic() + self.every_s  # before it: what fails comes again as late as what does not
        try:
            if self.do():
                self.due_s = -math.inf
            self.fault = ""
        except Exception as error:
            if str(error) != self.fault:
                _say(f"{self.what}: {in_words(error)}")
            self.fault = str(error)


class _Turns:
    """What the resolver does, each as often as it is due."""

    def __init__(self, store: "Store", workers: "HandedOver | None") -> None:
        from pipeline.crops.crop_store import CropStore
        from pipeline.resolve.closing import Closing

        self._store, self._workers = store, workers
        self._closing, self._crops = Closing(settings().association), CropStore(settings())
        self._chores = [
            _Chore("pictures that were gone", _PICTURES_EVERY_S, self._take_back, time.monotonic() + _PICTURES_EVERY_S),
            _Chore("the audit's checkpoint", _CHECKPOINT_EVERY_S, self._sign),
            _Chore("urgent use that nobody approved", _LOCK_EVERY_S, self._lock),
            _Chore("retention", _RETENTION_EVERY_S, self._expire),
            _Chore("context frames by age", _RETENTION_EVERY_S, self._expire_context_frames),
        ]
        self._short: Mapping[str, str] = {}

    def take(self) -> None:
        for chore in self._chores:
            chore.look()
        with self._store.begin() as connection:
            due = self._closing.look(connection, time.monotonic())
        for parameters, began, ended in _here(due) if self._workers is None else _on_workers(due, self._workers):
            self._closing.resolved(parameters, began, ended)
            if parameters.to_time is None:  # nothing more comes for now
                self._short = _say_if_short(self._store, self._short)

    def _take_back(self) -> bool:
        from pipeline.resolve.pictures import take_back

        take_back(self._store, self._crops)
        return False

    def _sign(self) -> bool:
        from pipeline.governance.audit_chain import sign_checkpoint

        sign_checkpoint(self._store)
        return False

    def _lock(self) -> bool:
        from pipeline.governance.authorizations import lock_overdue

        lock_overdue(self._store)
        return False

    def _expire(self) -> bool:
        from pipeline.erasure.expire import expire

        return expire(self._store, actor=settings().operator, most_batches=_RETENTION_BATCHES, on_wait=_say).more

    def _expire_context_frames(self) -> bool:
        from pipeline.erasure.expire import expire_context_frames

        expire_context_frames(self._store)
        return False


def _say_if_short(store: "Store", said: Mapping[str, str]) -> Mapping[str, str]:
    """Says of which districts the recordings are too short to learn from by themselves, where it was not `said`."""
    from pipeline.calibration.unlabeled.versions import before_first_mark
    from pipeline.registry import model_in_use

    with store.begin() as connection:
        found = before_first_mark(store, connection, model_in_use(connection))
    for district, why in found.items():
        if said.get(district) != why:
            _say(f"{district}: {why}")
    return found


@contextmanager
def _workers() -> "Iterator[HandedOver | None]":
    """The runs of workers, where the settings have flows run there."""
    if settings().flows == "here":
        yield None
        return
    from urban_reid.handed_over import handing_over

    with handing_over(settings(), _say) as workers:
        yield workers


def _on_workers(due: Sequence[ResolveParameters], workers: "HandedOver") -> "Iterator[Ended]":
    for parameters in due:
        workers.hand(parameters)
    return workers.ended()


def _here(due: Sequence[ResolveParameters]) -> "Iterator[Ended]":
    for parameters in due:
        began = time.monotonic()
        _resolve(parameters)
        yield parameters, began, time.monotonic()


def _resolve(parameters: ResolveParameters) -> None:
    """Runs the district's flow, and says what went wrong with it."""
    from flows.resolve import district
    from flows.runs import of_windows
    from flows.work import working
    from urban_reid.running import reported

    try:
        with reported(settings()) as run, working(settings()) as work, of_windows():
            work.on_wait = _say
            run(district, parameters)
    except Exception as error:
        _say(f"{parameters.unit}: {in_words(error)}")


def _say(what: object) -> None:
    logging.getLogger("urban_reid.resolver").warning("%s", one_line(what))


if __name__ == "__main__":
    sys.exit(main())
