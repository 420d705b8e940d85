"""What the tasks of a run share: the store, the crops and the cores of models, each opened once.

Each task reads at its start which model is in use: that may change during a run.

Whatever is called here runs with Prefect or without: called as a flow, its steps are tasks of the run; called plainly
(`flow.fn`), they are steps of the same order.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from flows.failures import RunFailed
from flows.timing import TimedCore, Timing
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, model_in_use
from pipeline.store import Store
from reid_core.files import open_space
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.errors import CoreUnavailable, ModelChanged, PicturesUnavailable, StoreUnavailable
from schemas.settings import Settings
from schemas.text import one_line

P = ParamSpec("P")
T = TypeVar("T")

#: Units in work at a time: one waits for the core, another for the database, a third decodes pictures. Each takes up
#: to two connections to the database.
_THREADS = 6
#: Pauses before new tries of what failed because something did not answer, seconds; see `_is_passing`. Together longer
#: than a restart, or until a replica has taken a database's place.
_PAUSES_S = (1.0, 2.0, 4.0, *(8.0,) * 8)
#: A task that takes longer than this hangs, seconds. A large city's first run takes hours.
_TIMEOUT_S = 24 * 3600.0


class Work:
    """Open during one run, or several in one process; safe for threads."""

    def __init__(self, store: Store, timing: Timing) -> None:
        self.settings = store.settings
        self.store = store
        self.crops = CropStore(store.settings)
        self.timing = timing
        self._cores: dict[int, TimedCore] = {}
        #: Called with a line that names the process which works on a unit that this one waits for.
        self.on_wait: Callable[[str], None] | None = None
        #: Called by long steps with (what is being done, how much is done, how much there is; 0 if not known).
        self.on_step: Callable[[str, int, int], None] | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="urban-reid")
        self._told: set[type[Exception]] = set()

    def core(self, model: ModelRow) -> ReIDCore:
        """The core of a registered model, opened at its first call and kept."""
        if model.id not in self._cores:
            directory = model.directory(self.settings)
            space = open_space(directory, model.card)
            made = TimedCore(model.card, space, lambda: open_core(self.settings, directory), self.timing)
            self._cores.setdefault(model.id, made)
        return self._cores[model.id]

    def with_model_in_use(self, function: Callable[[ModelRow], T]) -> T:
        """Calls `function` with the model in use, and again with the new one if that changes meanwhile."""
        while True:
            with self.store.begin() as connection:
                model = model_in_use(connection)
            try:
                return function(model)
            except ModelChanged:
                continue

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a plain function in a thread, so that the flow's event loop stays free.

        Where the database, the pictures or the core do not answer, calls it again after pauses: it must do nothing
        twice.
        """
        context = contextvars.copy_context()

        def call() -> T:
            with self.timing.during("association"):
                return context.run(function, *args, **kwargs)

        for pause_s in _PAUSES_S:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
            except Exception as error:
                if not _is_passing(error):
                    raise
                self._tell(error)
            await asyncio.sleep(pause_s)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _tell(self, error: Exception) -> None:
        """Says once that something does not answer; Prefect is not told the text."""
        if type(error) in self._told:
            return
        self._told.add(type(error))
        logger_of_run().warning("%s: trying again", type(error).__name__)
        if self.on_wait is not None:
            self.on_wait(f"{one_line(error)}; trying again")

    def close(self) -> None:
        # Not waited for: a step that is interrupted here is rolled back, as after a kill.
        self._threads.shutdown(wait=False, cancel_futures=True)


_open: contextvars.ContextVar[Work | None] = contextvars.ContextVar("urban_reid_work", default=None)


@contextlib.contextmanager
def working(settings: Settings, timing: Timing | None = None) -> Iterator[Work]:
    """Yields the Work that is open in this context, or opens one. Raises StoreError."""
    if (opened := _open.get()) is not None:
        yield opened
        return
    with Store.open(settings, "urban-reid flow") as store:
        timing = timing or Timing()
        store.listen(lambda start, end: timing.add("database", start, end))
        work = Work(store, timing)
        token = _open.set(work)
        try:
            yield work
        finally:
            _open.reset(token)
            work.close()


def logger_of_run() -> "logging.Logger | logging.LoggerAdapter[Any]":
    """The log of the flow run, on Prefect's pages; called without Prefect, one that nobody keeps."""
    return logging.getLogger(__name__) if FlowRunContext.get() is None else get_run_logger()


def _is_passing(error: BaseException) -> bool:
    """Whether another try is worth it, because the database, the pictures or the core did not answer."""
    return isinstance(error, StoreUnavailable | PicturesUnavailable | CoreUnavailable)


def step(name: str, function: Callable[[str], Coroutine[Any, Any, T]]) -> Callable[[str], Coroutine[Any, Any, T]]:
    """A step over one unit: a task of the flow run that it is called in, with a time limit.

    Its result stays in this process. Raises what `function` raises, within a flow run as RunFailed.
    """

    async def told(unit: str) -> T:
        try:
            return await function(unit)
        except Exception as error:
            raise RunFailed(error) from None

    decorated = task(
        name=name,
        task_run_name="{unit}",
        timeout_seconds=_TIMEOUT_S,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(told)

    async def call(unit: str) -> T:
        return await (function(unit) if FlowRunContext.get() is None else decorated(unit))

    return call
