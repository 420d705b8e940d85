"""The six flows as deployments, which Prefect's own pages can run, and the process that starts their runs.

Nothing is scheduled: `urban_reid/resolver.py` resolves windows as they close.

`python -P -m flows.deployments`, started by `urban-reid up` with the environment of `flows.environment`. The runner
starts the flow objects of this process: what a row of Prefect's API names (an entry point, pull steps, a command, an
environment, a block) is never run. See docs/decisions/prefect-runner.md.
"""

import asyncio
import logging
import math
import signal
import sys
import time
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from flows.names import DEPLOYMENT
from flows.resolve import FLOWS
from flows.runs import delete_passing, mark_crashed
from flows.search import search
from flows.training import resume_promoted, training
from pipeline.registry import models
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.errors import StoreError, UrbanReidError
from schemas.logs import begin_logging
from schemas.settings import settings

#: Pause between looks for runs that are due; between looks for another model in use, seconds.
_POLL_S = 2.0
_LOOK_S = 10.0
_SWEEP_EVERY_S = 3600.0
#: Runs at a time, each in a process of its own; further ones wait.
_LIMIT = 4


async def _serve() -> None:
    ended = asyncio.Event()
    async with get_client() as client:
        # Connections queue while the server starts: the first call waits for it.
        await client.hello()
        await mark_crashed(client, settings(), starting=True)
        runner = Runner(name="urban-reid", query_seconds=_POLL_S, limit=_LIMIT, pause_on_shutdown=True)
        with Store.open(settings(), "urban-reid deployments") as store:
            model = await asyncio.to_thread(_model_in_use, store)
            flows: list[Flow[..., Any]] = [*FLOWS.values(), search, training]
            for flow in flows:
                await _register(runner, client, flow)
            await resume_promoted(client, store)
            swept = -math.inf
            running = asyncio.create_task(runner.start())
            await asyncio.sleep(0)  # it has set its own handler, which ends no run
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            asked_to_end = asyncio.create_task(ended.wait())
            (settings().home / "prefect" / "serving").touch()  # `up` waits for it
            while not running.done() and not ended.is_set():
                await asyncio.wait((running, asked_to_end), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                before = model
                try:
                    model = await asyncio.to_thread(_model_in_use, store)
                    if model != before:
                        await resume_promoted(client, store)
                    if time.monotonic() - swept > _SWEEP_EVERY_S:
                        swept = time.monotonic()
                        await mark_crashed(client, settings(), starting=False)
                        await delete_passing(client)
                except (StoreError, httpx.HTTPError, PrefectException):
                    model = before  # tried again after the pause; the runs report it too
            if ended.is_set():
                await runner.astop()
            await running


def _model_in_use(store: Store) -> str | None:
    return next((row.name for row in models(store) if row.in_use), None)


async def _register(runner: Runner, client: PrefectClient, flow: Flow[..., Any]) -> None:
    """Registers the flow as a deployment, without the schedules that up to 0.2 that of districts had."""
    # add_flow, not add_deployment: a deployment alone is started from the entry point that its row names.
    # paused=False: the runner that ended before has paused them.
    deployment = await runner.aadd_flow(flow, DEPLOYMENT, paused=False, entrypoint_type=EntrypointType.MODULE_PATH)
    for schedule in await client.read_deployment_schedules(deployment):
        await client.delete_deployment_schedule(deployment, schedule.id)


def main() -> int:
    keep_private()
    try:
        begin_logging(settings().log, "runner")
        asyncio.run(_serve())
    except UrbanReidError as error:
        logging.getLogger("urban_reid.runner").critical("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
