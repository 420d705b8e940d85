"""Flow runs from the command line: in this process, or handed over to the runner of `urban-reid up`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.environment import connected
from flows.server import PrefectServer
from schemas.city_file import unknown_unit
from schemas.errors import FlowError
from schemas.levels import level_of
from schemas.parameters import ResolveParameters, SearchParameters, SearchResult, TrainParameters
from schemas.settings import Settings
from urban_reid import STARTED_S
from urban_reid.up import is_up

if TYPE_CHECKING:
    from flows.resolve import Resolved
    from flows.training import Trained
    from schemas.city_file import City


@dataclass(frozen=True)
class Timed:
    """A resolve, and how its wall time was spent."""

    resolved: "Resolved"
    seconds: dict[str, float]  # by kind, and "total"; see flows.timing


def resolve(
    settings: Settings,
    parameters: ResolveParameters,
    on_step: Callable[[str, int, int], None],
    on_wait: Callable[[str], None],
    since: float = STARTED_S,
) -> Timed:
    """Runs the flow of the unit's level in this process and returns when it has ended.

    `on_step` is called with (what is being done, how much of it is done, how much there is); `on_wait` with a line that
    names the process that this one waits for. Time is counted from `since`, in seconds of time.perf_counter.
    Raises what the work raises; FlowError when the Prefect server does not answer.
    """
    with ready(settings, parameters.unit), PrefectServer(settings) as server, connected(settings, server.url):
        from flows.resolve import FLOWS
        from flows.timing import Timing
        from flows.work import working

        timing = Timing()
        with working(settings, timing) as work:
            work.on_step, work.on_wait = on_step, on_wait
            server.wait()
            with timing.during("prefect"):
                resolved = asyncio.run(FLOWS[level_of(parameters.unit)](parameters))
        return Timed(resolved, timing.split(since, time.perf_counter()))


def search(settings: Settings, parameters: SearchParameters) -> SearchResult:
    """Runs the search flow in this process and returns its result. Raises as `resolve` does."""
    with ready(settings, parameters.unit), PrefectServer(settings) as server, connected(settings, server.url):
        from flows.search import search as flow

        server.wait()
        return asyncio.run(flow(parameters))


def train(settings: Settings, parameters: TrainParameters, on_step: Callable[[str, int, int], None]) -> "Trained":
    """Runs the training flow in this process, up to the registered candidate. `on_step`, errors: as for `resolve`."""
    from pipeline.store import Store

    with Store.open(settings, "urban-reid train"), PrefectServer(settings) as server, connected(settings, server.url):
        from flows.training import training
        from flows.work import working

        with working(settings) as work:
            work.on_step = on_step
            server.wait()
            return asyncio.run(training(parameters))


def hand_over(settings: Settings, parameters: ResolveParameters) -> dict[str, Any]:
    """Starts the flow in the runner of `urban-reid up`: {flow_run: its id, url: its page}.

    Raises FlowError when nothing is up.
    """
    if not is_up(settings) and settings.prefect_url is None:
        raise FlowError("nothing is up to run it: start `urban-reid up` on this data directory, or omit --no-wait")
    with ready(settings, parameters.unit), PrefectServer(settings) as server, connected(settings, server.url):
        from prefect.deployments import arun_deployment
        from prefect.exceptions import ObjectNotFound

        from flows.deployments import deployment_name

        server.wait()
        name = deployment_name(level_of(parameters.unit))
        try:
            run = asyncio.run(
                arun_deployment(name, parameters={"parameters": parameters.model_dump(mode="json")}, timeout=0)
            )
        except ObjectNotFound:
            raise FlowError(f"{name} is not served yet; `urban-reid up` prints its address when it is ready") from None
        return {"flow_run": str(run.id), "url": f"{server.ui_url}/runs/flow-run/{run.id}"}


@contextmanager
def ready(settings: Settings, unit: str) -> Iterator["City"]:
    """Holds the database and yields the city. Raises if the city has no such unit or no model is in use.

    Both are checked before the wait for Prefect.
    """
    from pipeline.city.units import read_city
    from pipeline.registry import model_in_use
    from pipeline.store import Store

    with Store.open(settings, "urban-reid") as store:
        city = read_city(store)
        known = {u.code for u in city.units}
        if unit not in known:
            raise unknown_unit(unit, known)
        with store.begin() as connection:
            model_in_use(connection)
        yield city
