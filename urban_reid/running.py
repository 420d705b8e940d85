"""Flow runs from the command line: in this process, or handed over to the runner of `urban-reid up`."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.environment import connected
from flows.names import deployment_name
from flows.server import PrefectServer
from schemas.city_file import unknown_unit
from schemas.errors import FlowError, HomeError
from schemas.levels import level_of
from schemas.parameters import RequestParameters, ResolveParameters, SearchParameters, SearchResult, TrainParameters
from schemas.settings import Settings
from urban_reid import STARTED_S
from urban_reid.output import say, shown
from urban_reid.up import is_up

if TYPE_CHECKING:
    from flows.resolve import Resolved
    from flows.training import Trained
    from pipeline.store import Store
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
    names the process that this one waits for. Time is counted from `since`, in seconds of time.perf_counter. Raises
    what the work raises.
    """
    with ready(settings, parameters.unit), reported(settings) as run:
        from flows.resolve import FLOWS
        from flows.timing import Timing
        from flows.work import working

        timing = Timing()
        with working(settings, timing) as work:
            work.on_step, work.on_wait = on_step, on_wait
            with timing.during("prefect"):
                resolved = run(FLOWS[level_of(parameters.unit)], parameters)
        return Timed(resolved, timing.split(since, time.perf_counter()))


def search(
    settings: Settings, parameters: SearchParameters, pictures: Mapping[UUID, bytes]
) -> tuple[UUID, SearchResult]:
    """Writes the request down and runs the search flow in this process. Returns the request's id and the result.

    Raises as `resolve`. pictures, and further errors: as for `request_search`.
    """
    with ready(settings, parameters.unit) as opened, reported(settings) as run:
        from flows.search import search as flow
        from pipeline.registry import model_in_use
        from pipeline.search.request import request_search

        with opened.store.begin() as connection:
            model = model_in_use(connection)
        request = request_search(opened.store, model, parameters, pictures=pictures)
        return request, run(flow, RequestParameters(request=request))


def train(
    settings: Settings,
    parameters: TrainParameters,
    on_step: Callable[[str, int, int], None],
) -> "Trained":
    """Runs the training flow in this process, up to the registered candidate. `on_step`, errors: as for `resolve`."""
    from pipeline.store import Store
    from pipeline.training.request import request_training

    with Store.open(settings, "urban-reid train") as store, reported(settings) as run:
        from flows.training import training
        from flows.work import working

        with working(settings) as work:
            work.on_step = on_step
            request = request_training(store, parameters)
            trained: Trained = run(training, RequestParameters(request=request))
            return trained


@contextmanager
def reported(settings: Settings) -> Iterator[Callable[[Any, Any], Any]]:
    """Yields a function that calls a flow with its parameters, and returns or raises what the flow's work does.

    The run is reported to Prefect where that answers. Where it does not, or stops to answer, the work is done all the
    same, and one line on stderr warns of it.
    """
    with ExitStack() as holds:
        server: PrefectServer | None = None
        try:
            server = holds.enter_context(PrefectServer(settings))
            holds.enter_context(connected(settings, server.url))
        except (FlowError, HomeError) as error:
            server = None
            _warn(error)
            holds.enter_context(connected(settings, None))

        def run(flow: Any, parameters: Any) -> Any:
            from flows.failures import call, call_unreported

            if server is None:
                return call_unreported(flow, parameters)
            try:
                server.wait()
            except FlowError as error:
                _warn(error)
                return call_unreported(flow, parameters)
            return call(flow, parameters, _warn)

        yield run


def _warn(reason: object) -> None:
    say(f"warning: Prefect does not show this run, or not all of it: {shown(reason)}")


def hand_over(settings: Settings, parameters: ResolveParameters) -> dict[str, Any]:
    """Has the runner of `urban-reid up`, or workers, run the flow: {flow_run: its id, url: its page}.

    Raises FlowError when nothing is up.
    """
    _refuse_if_nothing_is_up(settings)
    name = deployment_name(level_of(parameters.unit), settings.flows)
    with ready(settings, parameters.unit):
        return _hand_over(settings, name, parameters)


def hand_over_training(settings: Settings, parameters: TrainParameters) -> dict[str, Any]:
    """As `hand_over`, for a training run."""
    from pipeline.store import Store
    from pipeline.training.request import request_training

    _refuse_if_nothing_is_up(settings)
    with Store.open(settings, "urban-reid train") as store:
        request = request_training(store, parameters)
    return _hand_over(settings, deployment_name("training", settings.flows), RequestParameters(request=request))


def _refuse_if_nothing_is_up(settings: Settings) -> None:
    if not is_up(settings) and settings.prefect_url is None:
        raise FlowError("nothing is up to run it: start `urban-reid up` on this data directory, or omit --no-wait")


def _hand_over(settings: Settings, name: str, parameters: ResolveParameters | RequestParameters) -> dict[str, Any]:
    with PrefectServer(settings) as server, connected(settings, server.url):
        from prefect.deployments import arun_deployment
        from prefect.exceptions import ObjectNotFound

        server.wait()
        try:
            run = asyncio.run(
                arun_deployment(name, parameters={"parameters": parameters.model_dump(mode="json")}, timeout=0)
            )
        except ObjectNotFound:
            if settings.flows == "workers":
                raise FlowError(f"{name} is not served yet: start `urban-reid worker` on a host") from None
            raise FlowError(f"{name} is not served yet; `urban-reid up` prints its address when it is ready") from None
        return {"flow_run": str(run.id), "url": f"{server.ui_url}/runs/flow-run/{run.id}"}


@dataclass(frozen=True)
class Ready:
    store: "Store"
    city: "City"


@contextmanager
def ready(settings: Settings, unit: str) -> Iterator[Ready]:
    """Holds the database and yields it, with the city. Raises if the city has no such unit or no model is in use.

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
        yield Ready(store, city)
