"""The six flows as deployments, which Prefect's own pages can run, and the process that starts their runs.

`python -P -m flows.deployments`, started by `urban-reid up` with the environment of `flows.environment`. The runner
starts the flow objects of this process: what a row of Prefect's API names (an entry point, pull steps, a command, an
environment, a block) is never run. See docs/decisions/prefect-runner.md.
"""

import asyncio
import math
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.schedules import Interval
from prefect.types.entrypoint import EntrypointType

from flows.names import DEPLOYMENT
from flows.resolve import FLOWS
from flows.runs import delete_empty, mark_crashed
from flows.search import search
from flows.training import resume_promoted, training
from pipeline.city.units import find_city
from pipeline.registry import models
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.errors import StoreError, UrbanReidError
from schemas.levels import Level
from schemas.parameters import ResolveParameters
from schemas.settings import settings

#: Pause between looks for runs that are due; between looks for another city or another model in use, seconds.
_POLL_S = 2.0
_DISTRICT_EVERY = timedelta(minutes=5)
_LOOK_S = 10.0
_SWEEP_EVERY_S = 3600.0
#: Runs at a time, each in a process of its own; further ones wait.
_LIMIT = 4


async def _serve() -> None:
    ended = asyncio.Event()
    async with get_client() as client:
        # Connections queue while the server starts: the first call waits for it.
        await client.hello()
        await mark_crashed(client, settings())
        runner = Runner(name="urban-reid", query_seconds=_POLL_S, limit=_LIMIT, pause_on_shutdown=True)
        with Store.open(settings(), "urban-reid deployments") as store:
            districts, model = await asyncio.to_thread(_look, store)
            flows: list[Flow[..., Any]] = [*FLOWS.values(), search, training]
            for flow in flows:
                await _register(runner, flow, districts)
            await resume_promoted(client, store)
            swept = -math.inf
            running = asyncio.create_task(runner.start())
            await asyncio.sleep(0)  # it has set its own handler, which ends no run
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            asked_to_end = asyncio.create_task(ended.wait())
            (settings().home / "prefect" / "serving").touch()  # `up` waits for it
            while not running.done() and not ended.is_set():
                await asyncio.wait((running, asked_to_end), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                before = districts, model
                try:
                    districts, model = await asyncio.to_thread(_look, store)
                    if districts != before[0]:
                        await _register(runner, FLOWS[Level.DISTRICT], districts)
                    if model != before[1]:
                        await resume_promoted(client, store)
                    if time.monotonic() - swept > _SWEEP_EVERY_S:
                        swept = time.monotonic()
                        await delete_empty(client)
                except (StoreError, httpx.HTTPError, PrefectException):
                    districts, model = before  # tried again after the pause; the runs report it too
            if ended.is_set():
                await runner.astop()
            await running


def _look(store: Store) -> tuple[list[str], str | None]:
    """The city's districts and the name of the model in use."""
    city = find_city(store)
    districts = [] if city is None else sorted(unit.code for unit in city.units if unit.level is Level.DISTRICT)
    return districts, next((row.name for row in models(store) if row.in_use), None)


async def _register(runner: Runner, flow: Flow[..., Any], districts: list[str]) -> None:
    """Registers the flow as a deployment; the district flow with a schedule for each district of the city."""
    schedules = [
        Interval(
            _DISTRICT_EVERY,
            parameters={"parameters": ResolveParameters(unit=code).model_dump(mode="json")},
            slug=code,
        )
        for code in districts
        if flow is FLOWS[Level.DISTRICT]
    ]
    # add_flow, not add_deployment: a deployment alone is started from the entry point that its row names.
    # paused=False: the runner that ended before has paused them.
    await runner.aadd_flow(
        flow, DEPLOYMENT, schedules=schedules, paused=False, entrypoint_type=EntrypointType.MODULE_PATH
    )


def main() -> int:
    keep_private()
    try:
        asyncio.run(_serve())
    except UrbanReidError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
