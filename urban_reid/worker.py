"""urban-reid worker: a host of the city that runs flows of some roles, or cameras, with its own core process.

It runs until Ctrl-C, and starts again what dies, as `up` does. What it shares with other hosts are the database, the
Prefect server and the pictures; models, detectors and secrets of cameras lie in its own data directory.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Literal, get_args

from flows.environment import environment
from flows.names import FlowRole
from flows.server import PrefectServer
from schemas.disk import full_disk
from schemas.errors import FlowError, UsageError
from schemas.levels import Code
from schemas.settings import Settings
from urban_reid.service_manager import tell_manager
from urban_reid.up import Cameras, Child, Database, alone, check_shared, listens, on_signals

Role = FlowRole | Literal["cameras"]
FLOW_ROLES: tuple[FlowRole, ...] = get_args(FlowRole)
ROLES: tuple[Role, ...] = (*FLOW_ROLES, "cameras")

_LOOK_EVERY_S = 0.5
_READY_WITHIN_S = 180.0
#: Between two looks for runs that are due, seconds.
_POLL_S = "2"


def run(
    settings: Settings,
    roles: Sequence[Role],
    units: Sequence[Code],
    runs: int,
    say: Callable[[str], None],
    on_ready: Callable[[], None],
) -> None:
    """Works until SIGINT, SIGTERM or SIGHUP. `units`: whose runs are taken first; `runs`: of each role at a time.

    Raises UsageError where the settings name no shared database and, for flows, no shared Prefect server; HomeError
    when another `up` or worker runs on this data directory; FlowError when the core process does not start.
    """
    from pipeline.metrics.server import serving_metrics
    from pipeline.store import Store
    from reid_core.serving.unix_socket import usable
    from reid_core.serving.wire import socket_path

    of_flows = [role for role in FLOW_ROLES if role in roles]
    if of_flows:
        check_shared(settings, f"--role {of_flows[0]}")
    elif settings.database_url is None:
        raise UsageError("--role cameras needs URBAN_REID_DATABASE_URL: hosts share a database")
    settings = settings.model_copy(update={"home": settings.home.absolute()})
    home = settings.home
    core_socket = socket_path(settings)
    usable(settings.cameras_socket)
    ended = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(alone(settings))
        stack.enter_context(on_signals(ended.set))
        store = stack.enter_context(Store.open(settings, "urban-reid worker"))
        stack.enter_context(serving_metrics(store))
        server = stack.enter_context(PrefectServer(settings)) if of_flows else None
        (home / "prefect").mkdir(mode=0o700, exist_ok=True)
        variables = environment(settings, server.url if server else None)
        polling = variables | {"PREFECT_WORKER_QUERY_SECONDS": _POLL_S}
        core = Child("the core process", "reid_core.core_process.service", variables, home / "core.log")
        others: list[Child | Cameras] = []
        for role in of_flows:
            options = _options(settings, role, units, runs)
            name, log = f"the worker of role {role}", home / f"worker-{role}.log"
            others.append(Child(name, "flows.workers.worker", polling, log, (options,)))
        if "search" in roles:
            others.append(Child("the search process", "pipeline.search.service", variables, home / "search.log"))
        children = [core, *(child for child in others if isinstance(child, Child))]
        if "cameras" in roles:
            child = Child("the cameras' process", "pipeline.cameras.service", variables, home / "cameras.log")
            children.append(child)
            others.append(Cameras(store, child))
        for child in children:
            stack.callback(child.end)
        has_core = settings.core_url is None  # else another host computes
        if has_core:
            core.start()
        database = Database(store)
        give_up_at, ready = time.monotonic() + _READY_WITHIN_S, False
        while not ended.wait(_LOOK_EVERY_S):
            for part in (database, core, *(others if ready else ())):
                part.look(say)
            tell_manager("WATCHDOG=1")
            core_up = not has_core or listens(core_socket)
            if core_up and not ready:  # not before: each process would load the model itself
                ready = True
                for part in others:
                    if isinstance(part, Child):
                        part.start()
                on_ready()
                tell_manager("READY=1")
            if not ready and time.monotonic() > give_up_at:
                why = full_disk(home) or f"see {core.log}"
                raise FlowError(f"not ready within {_READY_WITHIN_S:.0f} s: {why}")
        tell_manager("STOPPING=1")
        say("ending")


def _options(settings: Settings, role: FlowRole, units: Sequence[Code], runs: int) -> str:
    from flows.workers.options import WorkerOptions

    return WorkerOptions(role=role, units=tuple(units), runs=runs, name=settings.host_name).model_dump_json()
