"""A unit and everything below it in several processes, without Prefect: plain functions, for measurements and scripts.

Each process opens the store and the core once. What does not depend on each other runs at once: a building with its
cameras is one task, then a street, then the district.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from pipeline.city.units import read_city
from pipeline.registry import ModelRow, model_in_use
from pipeline.resolve.runs import UnitResult
from pipeline.resolve.unit import resolve_unit
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.errors import CoreError
from schemas.levels import Level, is_within, level_of, parent_of
from schemas.parameters import Period
from schemas.settings import Settings


@dataclass(frozen=True)
class _Open:
    store: Store
    model: ModelRow
    core: ReIDCore


_process: list[_Open | Exception] = []  # what this process has open, or why it has not; one entry at most


@contextmanager
def resolving(settings: Settings, processes: int) -> Iterator["Resolving"]:
    """Starts the processes, which end with the block. The model in use has to stay.

    Raises what a process that cannot open the store or the core does, and CoreError where one is killed.
    """
    try:
        with ProcessPoolExecutor(processes, get_context("spawn"), _start, (settings,)) as pool:
            for started in [pool.submit(_check) for _ in range(processes)]:
                started.result()
            yield Resolving(settings, pool)
    except BrokenProcessPool as error:
        raise CoreError(
            f"one of {processes} processes that resolve units was killed, or could not start; if memory ran out, "
            "take fewer. What was written stays: start again"
        ) from error


@dataclass(frozen=True)
class Resolving:
    settings: Settings
    pool: ProcessPoolExecutor

    def __call__(
        self,
        units: Sequence[str],
        *,
        period: Period | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[UnitResult]:
        """Resolves `units` and all below them with the model in use; a result a unit, cameras first.

        `progress` hears of (units done, units in all). Crops have to be embedded already. Raises what `resolve_unit`
        does, and CityError for a home without a city.
        """
        with Store.open(self.settings, "urban-reid resolve") as store:
            codes = [u.code for u in read_city(store).units if any(is_within(u.code, unit) for unit in units)]
        tasks = {code: [code] for code in codes if level_of(code) is not Level.CAMERA}
        for code in codes:
            if level_of(code) is Level.CAMERA:
                tasks.setdefault(code if code in units else parent_of(code) or "", []).insert(0, code)
        below = Counter(parent_of(code) for code in tasks)  # tasks that a unit's own waits for
        results: list[UnitResult] = []
        running: dict[Future[list[UnitResult]], str] = {}

        def start(code: str) -> None:
            running[self.pool.submit(_resolve, tasks[code], period)] = code

        for code in sorted(code for code in tasks if not below[code]):
            start(code)
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                results += done.result()
                above = parent_of(running.pop(done))
                below[above] -= 1
                if above in tasks and not below[above]:
                    start(above)
                if progress is not None:
                    progress(len(results), len(codes))
        order = {code: place for place, code in enumerate(codes)}
        return sorted(results, key=lambda result: (-result.unit.count("/"), order[result.unit]))


def _start(settings: Settings) -> None:
    """In a new process: opens the store, which the process holds until it ends, and the core.

    What goes wrong is kept for the first task to raise: here the pool would swallow it.
    """
    try:
        store = Store.open(settings, "urban-reid resolve")
        with store.begin() as connection:
            model = model_in_use(connection)
        _process.append(_Open(store, model, open_core(settings, model.directory(settings))))
    except Exception as error:
        _process.append(error)


def _ours() -> _Open:
    (ours,) = _process
    if isinstance(ours, Exception):
        raise ours
    return ours


def _check() -> None:
    _ours()


def _resolve(units: list[str], period: Period | None) -> list[UnitResult]:
    ours = _ours()
    return [
        resolve_unit(
            ours.store,
            ours.core,
            ours.model,
            unit,
            settings=ours.store.settings.association,
            period=period,
        )
        for unit in units
    ]
