"""The six flows as deployments, which Prefect's own pages can run, and the process that starts their runs.

`python -P -m flows.deployments`, started by `urban-reid up` with the environment of `flows.server`. Entry points are
modules: a file's would put the working directory first on the import path.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.runner import Runner
from prefect.schedules import Interval
from prefect.types.entrypoint import EntrypointType

from flows.resolve import FLOWS
from flows.search import search
from flows.training import training
from pipeline.city.units import find_city
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.errors import StoreUnavailable, UrbanReidError
from schemas.levels import Level
from schemas.parameters import ResolveParameters
from schemas.settings import settings

#: Pause between looks for runs that are due, seconds.
_POLL_S = 2.0
_DISTRICT_EVERY = timedelta(minutes=5)
_LOOK_FOR_CITY_S = 10.0
#: Runs at a time, each in a process of its own; further ones wait.
_LIMIT = 4


def deployment_name(level: Level) -> str:
    """Prefect's name of the deployment that resolves units of a level: flow/deployment."""
    return f"{level}/urban-reid"


async def _serve() -> None:
    # Connections queue while the server starts: the first call waits for it.
    async with get_client() as client:
        await client.hello()
    runner = Runner(name="urban-reid", query_seconds=_POLL_S, limit=_LIMIT, pause_on_shutdown=True)
    with Store.open(settings(), "urban-reid deployments") as store:
        districts = await asyncio.to_thread(_districts, store)
        flows: list[Flow[..., Any]] = [*FLOWS.values(), search, training]
        for flow in flows:
            await _register(runner, flow, districts)
        (settings().home / "prefect" / "serving").touch()  # `up` waits for it
        running = asyncio.create_task(runner.start())
        while not running.done():
            await asyncio.wait((running,), timeout=_LOOK_FOR_CITY_S)
            try:
                found = await asyncio.to_thread(_districts, store)
            except StoreUnavailable:
                continue  # tried again after the pause; the runs report it too
            if found != districts:
                await _register(runner, FLOWS[Level.DISTRICT], districts := found)
        await running


def _districts(store: Store) -> list[str]:
    city = find_city(store)
    return [] if city is None else sorted(unit.code for unit in city.units if unit.level is Level.DISTRICT)


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
    await runner.aadd_deployment(
        await flow.ato_deployment("urban-reid", schedules=schedules, entrypoint_type=EntrypointType.MODULE_PATH)
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
