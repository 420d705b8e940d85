"""The size of Prefect's database after runs that find nothing to do, and what they and tasks of runs cost.

    python -m benchmarks.prefect_growth [--runs 200] [--up] [--json]

Starts a Prefect server for a new data directory with a rendered city, and runs the deployment of its district that many
times, one after another in this process: each run takes the states and writes the logs that it does under
`urban-reid up`, whose runner only starts a process for each. With --up the runs are handed over to a real `up` instead,
which takes seconds a run, and before that it is left alone for a minute: nothing is scheduled, and with nothing pending
no run begins. Prints the database's bytes, its journal included, and, without --up, the processor time of this process
and of Prefect's server for a run; and the same of a task, by further runs before which every unit is marked: each is a
task then, which opens the unit and finds nothing.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.home import home
from benchmarks.overhead import PROGRAM

if TYPE_CHECKING:
    from pipeline.store import Store

#: Runs with tasks.
_BUSY = 10


@dataclass
class Grown:
    """Bytes of Prefect's database before, after half of the runs, and after all."""

    before: int
    between: int
    after: int
    run: "Used | None" = None  # of the second half
    task: "Used | None" = None


@dataclass(frozen=True)
class Used:
    """What one run or task took: seconds of a processor, those of Prefect's server among them, and bytes."""

    all_s: float
    server_s: float
    size: float

    def __sub__(self, other: "Used") -> "Used":
        return Used(self.all_s - other.all_s, self.server_s - other.server_s, self.size - other.size)

    def __truediv__(self, count: int) -> "Used":
        return Used(self.all_s / count, self.server_s / count, self.size / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--up", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    runs = given.runs
    with home() as folder:
        os.environ["URBAN_REID_HOME"] = str(folder / "home")
        _fill(folder)
        grown = (_grow_up if given.up else _grow)(folder / "home", runs)
    said = {
        f"{server}{name}_{what}": value
        for name, used in (("run", grown.run), ("task", grown.task))
        if used is not None
        for server, what, value in (("", "s", used.all_s), ("server_", "s", used.server_s), ("", "bytes", used.size))
    }
    if given.json:
        print(json.dumps({"runs": runs} | said))
        return
    print(f"before {grown.before:,} bytes, after {runs // 2} runs {grown.between:,}, after {runs} runs {grown.after:,}")
    for name, used in (("run", grown.run), ("task", grown.task)):
        if used is not None:
            print(
                f"a {name}: {used.size:,.0f} bytes, {used.all_s:.3f} s of a processor, {used.server_s:.3f} of them of "
                "Prefect's server"
            )


def _fill(folder: Path) -> None:
    """Loads a city, and puts the packaged demo model in use."""
    import reid_core
    from pipeline.city.units import read_city_file, store_city
    from pipeline.registry import register_model, use_model
    from pipeline.store import Store
    from schemas.settings import settings
    from synthetic.rendered_city import simulate_city, write_city

    write_city(simulate_city(1, cameras=8, people=1), folder / "city")
    shutil.copytree(reid_core.DEMO_MODEL, folder / "model")
    with Store.open(settings(), "benchmark") as store:
        store_city(store, read_city_file(folder / "city" / "city.yaml"))
        register_model(store, settings(), folder / "model", "demo")
        use_model(store, "demo")


def _grow(at: Path, runs: int) -> Grown:
    from flows.environment import connected
    from flows.server import PrefectServer
    from pipeline.store import Store
    from schemas.settings import settings

    with (
        Store.open(settings(), "benchmark") as store,
        PrefectServer(settings()) as server,
        connected(settings(), server.url),
    ):
        server.wait()
        from flows.work import working

        with working(settings()):
            asyncio.run(_run(1))  # creates the deployment
            before = _size(at)
            asyncio.run(_run(runs // 2))
            between = _used(at)
            asyncio.run(_run(runs - runs // 2))
            after = _used(at)
            run = (after - between) / (runs - runs // 2)
            asyncio.run(_run(_BUSY, before_each=lambda: _mark(store)))
            task = ((_used(at) - after) / _BUSY - run) / _mark(store)
        server.stop()
    return Grown(before, round(between.size), round(after.size), run, task)


def _mark(store: "Store") -> int:
    """Marks every unit, as new crops do; returns how many there are."""
    from sqlalchemy import text

    marked = text(
        "INSERT INTO watermark (unit, dirty_from, version) SELECT code, now(), 1 FROM urban_unit ORDER BY code "
        "ON CONFLICT (unit) DO UPDATE SET dirty_from = now(), version = watermark.version + 1"
    )
    with store.begin() as connection:
        return connection.execute(marked).rowcount


def _grow_up(at: Path, runs: int) -> Grown:
    """The same under `up`."""
    up = subprocess.Popen([*PROGRAM, "up", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert up.stdout is not None
        if not up.stdout.readline():
            sys.exit("`up` does not start")
        _hand_over(2)
        before = _size(at)
        time.sleep(60)
        print(f"a minute alone: {_size(at) - before:,} bytes")
        before = _size(at)
        _hand_over(runs // 2)
        between = _size(at)
        _hand_over(runs - runs // 2)
        return Grown(before, between, _size(at))
    finally:
        up.send_signal(signal.SIGINT)
        up.wait()


def _hand_over(count: int) -> None:
    """Has `up` run the district, and waits for the ends."""
    from flows.environment import connected
    from flows.server import PrefectServer
    from schemas.settings import settings

    with PrefectServer(settings()) as server, connected(settings(), server.url):
        server.wait()
        from prefect.deployments import arun_deployment

        from flows.names import deployment_name
        from schemas.levels import Level
        from schemas.parameters import ResolveParameters

        parameters = {"parameters": ResolveParameters(unit="d1").model_dump(mode="json")}
        for _ in range(count):
            run = asyncio.run(arun_deployment(deployment_name(Level.DISTRICT), parameters=parameters, poll_interval=1))
            assert run.state is not None and run.state.is_completed(), run.state


async def _run(count: int, before_each: Callable[[], object] = lambda: None) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State
    from prefect.flow_engine import run_flow_async
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
    from prefect.states import Pending, Scheduled

    from flows.names import DEPLOYMENT
    from flows.resolve import district
    from schemas.parameters import ResolveParameters

    parameters = {"parameters": ResolveParameters(unit="d1").model_dump(mode="json")}
    # Its server answers 503 while another has its SQLite for long; of hundreds of runs one may meet that.
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 5}):
        async with get_client() as client:
            deployment = await client.create_deployment(await client.create_flow(district), DEPLOYMENT)
            for _ in range(count):
                before_each()
                run = await client.create_flow_run_from_deployment(deployment, parameters=parameters, state=Scheduled())
                pending: tuple[State[Any], ...] = (Pending(), Pending(name="Submitting"))  # as the runner does
                for state in pending:
                    await client.set_flow_run_state(run.id, state, force=True)
                run = await client.read_flow_run(run.id)
                ended = await run_flow_async(district, flow_run=run, parameters=parameters, return_type="state")
                assert getattr(ended, "is_completed", lambda: False)(), ended


def _used(at: Path) -> Used:
    """So far, by this process and Prefect's server, which it started; without the city's database."""
    size, this = _size(at), psutil.Process()
    servers = [one for one in this.children(recursive=True) if one.name() != "postgres"]
    server = float(sum(sum(one.cpu_times()[:2]) for one in servers))
    return Used(sum(this.cpu_times()[:2]) + server, server, size)


def _size(at: Path) -> int:
    """Bytes of the database and its journal, once they have stopped to grow."""
    size = -1
    while (now := sum(file.stat().st_size for file in (at / "prefect").glob("prefect.db*"))) != size:
        size = now
        time.sleep(5)
    return size


if __name__ == "__main__":
    main()
