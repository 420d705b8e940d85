"""What Prefect is told of a run: that it failed and by which kind of error, never the error's text.

An error's text may name a crop, a picture, an operator or a reason, and Prefect writes it, with the traceback, into its
database and its logs. Whoever called the flow gets the error itself; where nobody did, it goes to HOME/errors.log.
"""

import asyncio
import contextvars
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

import httpx
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException, PrefectSignal
from prefect.runtime import deployment

from flows.events import bound_reports
from flows.runs import recorded
from schemas.errors import FlowError
from schemas.settings import settings
from schemas.text import one_line

P = ParamSpec("P")
T = TypeVar("T")


class RunFailed(FlowError):
    """Stands for `cause` in what Prefect sees."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(
            f"{type(cause).__name__}: what it says stands where the run was started, or in HOME/errors.log"
        )
        self.cause = cause

    def __reduce__(self) -> tuple[type[FlowError], tuple[str]]:
        return FlowError, (str(self),)  # Prefect stores a failed run's error as a pickle


class Outcome(Generic[T]):
    """How a flow function ended, whatever became of Prefect's account of it."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], T]] = []
        #: Why a part of the run is not reported; None where all is.
        self.unreported: str | None = None

    @property
    def ended(self) -> bool:
        return bool(self._ends)

    def get(self) -> T:
        """Returns what the flow function returned, or raises what it raised."""
        return self._ends[-1]()

    def returned(self, value: T) -> None:
        self._ends.append(lambda: value)

    def raised(self, error: BaseException) -> None:
        def end() -> T:
            raise error

        self._ends.append(end)


_outcome: contextvars.ContextVar[Outcome[Any] | None] = contextvars.ContextVar("urban_reid_outcome", default=None)


async def reported(send: Callable[[], Awaitable[object]]) -> None:
    """Sends something to Prefect, where a flow run is there to send it for.

    A report never fails the work that it is about: what Prefect does not take is left out, and so is what comes after.
    """
    outcome = _outcome.get()
    if FlowRunContext.get() is None or outcome is None or outcome.unreported is not None:
        return
    try:
        await send()
    except (httpx.HTTPError, PrefectException) as error:
        outcome.unreported = str(error) or type(error).__name__


def call(flow: Any, parameters: object, warn: Callable[[str], None]) -> Any:
    """Calls a flow in this process; returns or raises what its function does.

    Where Prefect fails meanwhile, the function's outcome counts, and `warn` is called with the reason; the function is
    called without Prefect if it was not yet.
    """
    bound_reports()
    outcome: Outcome[Any] = Outcome()
    token = _outcome.set(outcome)
    reason: str | None = None
    try:
        asyncio.run(flow(parameters))
    except RunFailed:
        pass
    except (Exception, PrefectSignal) as error:  # not of the function, whose errors are RunFailed
        reason = f"{type(error).__name__}: {one_line(error)}"
    finally:
        _outcome.reset(token)
    reason = outcome.unreported or reason
    if reason is not None:
        warn(reason)
    return outcome.get() if outcome.ended else call_unreported(flow, parameters)


def call_unreported(flow: Any, parameters: object) -> Any:
    """Calls a flow's function without Prefect; returns or raises what it does."""
    try:
        return asyncio.run(flow.fn(parameters))
    except RunFailed as failed:
        raise failed.cause from None


def confidential(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A flow function whose errors Prefect sees as RunFailed, and whose run is recorded while it lasts."""

    @wraps(function)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T:
        return await _told(function, *args, **kwargs)  # short: the runner pickles this function by its content

    return told


async def _told(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    outcome = _outcome.get()
    if outcome is None:
        _outcome.set(outcome := Outcome[T]())
    with recorded():
        try:
            result = await function(*args, **kwargs)
        except Exception as error:
            cause = error.cause if isinstance(error, RunFailed) else error
            outcome.raised(cause)
            if deployment.id is not None:
                _keep(cause)
            raise RunFailed(cause) from None
    outcome.returned(result)
    return result


def _keep(error: BaseException) -> None:
    """Appends the error to errors.log in the data directory, as the command line does."""
    text = "".join(traceback.format_exception(error))
    with suppress(OSError), (settings().home / "errors.log").open("a", errors="backslashreplace") as file:
        file.write(f"{datetime.now(UTC).isoformat()} flow run\n{text}\n")
