"""The size of Prefect's database after scheduled runs that find nothing to do.

    python -m benchmarks.prefect_growth [--runs 200]

Starts a Prefect server for a new data directory with a rendered city, and runs the deployment of its district that many
times, one after another in this process: each run takes the states and writes the logs that it does under
`urban-reid up`, whose runner only starts a process for each. Prints the database's bytes, its journal included.
"""

import argparse
import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.home import home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with home() as folder:
        os.environ["URBAN_REID_HOME"] = str(folder / "home")
        _fill(folder)
        before, between, after = _grow(folder / "home", runs)
    print(f"before {before:,} bytes, after {runs // 2} runs {between:,}, after {runs} runs {after:,}")
    print(f"a run: {(after - between) / (runs - runs // 2):,.0f} bytes")


def _fill(folder: Path) -> None:
    """Loads a city, and puts the packaged demo model in use."""
    import reid_core
    from pipeline.city.units import read_city_file, store_city
    from pipeline.registry import register_model, use_model
    from pipeline.store import Store
    from schemas.settings import settings
    from synthetic.rendered_city import simulate_city, write_city

    write_city(simulate_city(1, cameras=8, people=1), folder / "city")
    shutil.copytree(Path(reid_core.__file__).parent / "weights" / "demo", folder / "model")
    with Store.open(settings(), "benchmark") as store:
        store_city(store, read_city_file(folder / "city" / "city.yaml"))
        register_model(store, settings(), folder / "model", "demo")
        use_model(store, "demo")


def _grow(at: Path, runs: int) -> tuple[int, int, int]:
    from flows.environment import connected
    from flows.server import PrefectServer
    from pipeline.store import Store
    from schemas.settings import settings

    with (
        Store.open(settings(), "benchmark"),
        PrefectServer(settings()) as server,
        connected(settings(), server.url),
    ):
        server.wait()
        from flows.work import working

        with working(settings()):
            asyncio.run(_run(1))  # creates the deployment
            before = _size(at)
            asyncio.run(_run(runs // 2))
            between = _size(at)
            asyncio.run(_run(runs - runs // 2))
        after = _size(at)
        server.stop()
    return before, between, after


async def _run(count: int) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State
    from prefect.flow_engine import run_flow_async
    from prefect.states import Pending, Scheduled

    from flows.names import DEPLOYMENT
    from flows.resolve import district
    from schemas.parameters import ResolveParameters

    parameters = {"parameters": ResolveParameters(unit="d1").model_dump(mode="json")}
    async with get_client() as client:
        deployment = await client.create_deployment(await client.create_flow(district), DEPLOYMENT)
        for _ in range(count):
            run = await client.create_flow_run_from_deployment(deployment, parameters=parameters, state=Scheduled())
            pending: tuple[State[Any], ...] = (Pending(), Pending(name="Submitting"))  # as the runner does
            for state in pending:
                await client.set_flow_run_state(run.id, state, force=True)
            run = await client.read_flow_run(run.id)
            ended = await run_flow_async(district, flow_run=run, parameters=parameters, return_type="state")
            assert getattr(ended, "is_completed", lambda: False)(), ended


def _size(at: Path) -> int:
    """Bytes of the database and its journal, once they have stopped to grow."""
    size = -1
    while (now := sum(file.stat().st_size for file in (at / "prefect").glob("prefect.db*"))) != size:
        size = now
        time.sleep(5)
    return size


if __name__ == "__main__":
    main()
