"""Resolves a unit and everything below it in several processes, without Prefect: for scripts and measurements.

Each process opens the store and the core once, and computes on its share of the cores. A task is a building with its
cameras, a street, or the district; tasks that do not depend on each other run at once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue

from threadpoolctl import threadpool_limits

from pipeline.city.units import read_city
from pipeline.registry import ModelRow, model_in_use
from pipeline.resolve.progress import Progress, UnitsProgress
from pipeline.resolve.runs import UnitResult
from pipeline.resolve.unit import resolve_unit
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.cores import usable_cores
from schemas.errors import CoreError
from schemas.levels import Level, is_within, level_of, parent_of
from schemas.parameters import Period
from schemas.settings import Settings

#: How often the processes' progress is looked at, seconds.
_POLL_S = 0.2

#: A unit, how many of its windows are done, and how many there are.
_Messages = SimpleQueue[tuple[str, int, int]]


@dataclass(frozen=True)
class _Open:
    store: Store
    model: ModelRow
    core: ReIDCore
    messages: _Messages


_process: list[_Open | Exception] = []  # what this process has open, or why it could not; at most one entry


@contextmanager
def resolving(settings: Settings, processes: int) -> Iterator["Resolving"]:
    """Starts the processes and ends them with the block. The model in use must not change meanwhile.

    Raises what opening the store or the core raises in a process, and CoreError if a process is killed.
    """
    context = get_context("spawn")
    messages: _Messages = context.SimpleQueue()
    try:
        share = max(1, usable_cores() // processes)
        with ProcessPoolExecutor(processes, context, _start, (settings, messages, share)) as pool:
            for started in [pool.submit(_check) for _ in range(processes)]:
                started.result()
            yield Resolving(settings, pool, messages)
    except BrokenProcessPool as error:
        raise CoreError(
            f"one of {processes} processes that resolve units was killed or could not start; if memory ran out, use "
            "fewer processes. What was written stays: start again"
        ) from error
    finally:
        messages.close()


@dataclass(frozen=True)
class Resolving:
    settings: Settings
    pool: ProcessPoolExecutor
    messages: _Messages

    def __call__(
        self,
        units: Sequence[str],
        *,
        period: Period | None = None,
        progress: Progress | None = None,
    ) -> list[UnitResult]:
        """Resolves `units` and all units below them with the model in use; one result for each unit, cameras first.

        `progress` is told after each chunk of windows. All crops must be embedded before. Raises what `resolve_unit`
        raises, and CityError if the home has no city.
        """
        with Store.open(self.settings, "urban-reid resolve") as store:
            codes = [u.code for u in read_city(store).units if any(is_within(u.code, unit) for unit in units)]
        tasks = {code: [code] for code in codes if level_of(code) is not Level.CAMERA}
        for code in codes:
            if level_of(code) is Level.CAMERA:
                tasks.setdefault(code if code in units else parent_of(code) or "", []).insert(0, code)
        waits_for = Counter(parent_of(code) for code in tasks)  # unit -> tasks below it that are not done
        results: list[UnitResult] = []
        running: dict[Future[list[UnitResult]], str] = {}
        tell = UnitsProgress(len(codes), progress)

        def start(code: str) -> None:
            running[self.pool.submit(_resolve, tasks[code], period)] = code

        def tell_messages() -> None:
            while not self.messages.empty():
                tell(*self.messages.get())

        try:
            for code in sorted(code for code in tasks if not waits_for[code]):
                start(code)
            while running:
                for future in wait(running, _POLL_S, FIRST_COMPLETED).done:
                    above = parent_of(running.pop(future))
                    results += future.result()
                    waits_for[above] -= 1
                    if above in tasks and not waits_for[above]:
                        start(above)
                tell_messages()
        finally:
            # After an error, too: a process would wait for ever on a full pipe if its messages were not read.
            for future in running:
                future.cancel()
            while wait(running, _POLL_S).not_done:
                tell_messages()
        order = {code: place for place, code in enumerate(codes)}
        return sorted(results, key=lambda result: (-result.unit.count("/"), order[result.unit]))


def _start(settings: Settings, messages: _Messages, threads: int) -> None:
    """In a new process: opens the store and the core, which stay open until the process ends.

    With as many threads in each process as there are cores, they would wait for each other: 30 % more processor time.

    An error is kept for `_check` to raise: the pool would replace an error raised here by BrokenProcessPool.
    """
    try:
        threadpool_limits(threads)
        if "threads" not in settings.model_fields_set:
            settings = settings.model_copy(update={"threads": threads})
        store = Store.open(settings, "urban-reid resolve")
        with store.begin() as connection:
            model = model_in_use(connection)
        _process.append(_Open(store, model, open_core(settings, model.directory(settings)), messages))
    except Exception as error:
        _process.append(error)


def _opened() -> _Open:
    (opened,) = _process
    if isinstance(opened, Exception):
        raise opened
    return opened


def _check() -> None:
    _opened()


def _resolve(units: list[str], period: Period | None) -> list[UnitResult]:
    opened = _opened()
    results = []
    for unit in units:
        results.append(
            resolve_unit(
                opened.store,
                opened.core,
                opened.model,
                unit,
                settings=opened.store.settings.association,
                period=period,
                progress=partial(_tell, opened.messages, unit),
            )
        )
        _tell(opened.messages, unit, 1, 1)  # also where no window was pending
    return results


def _tell(messages: _Messages, unit: str, done: int, total: int) -> None:
    messages.put((unit, done, total))
