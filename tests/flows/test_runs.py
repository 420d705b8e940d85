"""Runs whose process was killed: they, and no others, are marked as crashed."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.runner import Runner
from prefect.schedules import Interval
from prefect.states import Pending, Running, Scheduled

from flows import deployments, runs
from flows.failures import call
from flows.names import DEPLOYMENT, deployment_name
from flows.resolve import FLOWS, district
from flows.runs import delete_passing, mark_crashed
from flows.work import working
from schemas.levels import Level
from schemas.parameters import ResolveParameters
from schemas.settings import Settings
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town


async def _runs(count: int) -> list[UUID]:
    async with get_client() as client:
        parameters = {"parameters": ResolveParameters(unit="d1").model_dump(mode="json")}
        return [
            (await client.create_flow_run(district, parameters=parameters, state=Running())).id for _ in range(count)
        ]


async def _mark(settings: Settings) -> int:
    async with get_client() as client:
        return await mark_crashed(client, settings, starting=False)


async def _delete() -> int:
    async with get_client() as client:
        return await delete_passing(client)


async def _states(runs: list[UUID]) -> list[str]:
    async with get_client() as client:
        return [str((await client.read_flow_run(run)).state_name) for run in runs]


@pytest.mark.usefixtures("prefect_url")
def test_a_run_that_found_nothing_is_deleted_after_a_day(town: Town, api: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def tagged() -> list[str]:
        body = {"flow_runs": {"tags": {"all_": ["nothing to do"]}}}
        return [run["id"] for run in api("/flow_runs/filter", body)]

    before = set(tagged())
    with working(town.store.settings):
        done = call(district, ResolveParameters(unit="d1"), pytest.fail)
    assert done.written == 0 and len(done.results) > 1
    (run,) = set(tagged()) - before
    assert api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}) == []
    assert asyncio.run(_delete()) == 0
    monkeypatch.setattr(runs, "_KEPT", timedelta(0))
    assert asyncio.run(_delete()) >= 1 and tagged() == []


@pytest.mark.usefixtures("prefect_url")
def test_only_runs_whose_process_is_dead_are_marked(home: Path) -> None:
    folder = home / "prefect" / "runs"
    folder.mkdir(parents=True)
    ids = asyncio.run(_runs(6))
    program = (
        "import sys, time; from uuid import UUID; from types import SimpleNamespace as N; import flows.runs as r\n"
        "r.FlowRunContext = N(get=lambda: N(flow_run=N(id=UUID(sys.argv[1]))))\n"
        "with r.recorded():\n    print('recorded', flush=True); time.sleep(600)"
    )
    variables = {**os.environ, "URBAN_REID_HOME": str(home)}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(run)], env=variables, stdout=subprocess.PIPE, text=True)
        for run in ids[:2]
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "recorded\n"
        killed, alive = processes
        killed.kill()  # and not waited for: a zombie runs nothing
        record = json.loads((folder / str(ids[0])).read_text())
        assert record["host"] == socket.gethostname() and record["process"] == killed.pid
        (folder / str(ids[2])).write_text(json.dumps(record | {"host": "another"}))
        boot, ticks = record["started"].split()
        later = {"host": socket.gethostname(), "process": alive.pid, "started": f"{boot} {int(ticks) - 500}"}
        (folder / str(ids[3])).write_text(json.dumps(later))  # the number is another process's now
        (folder / str(ids[4])).write_text("damaged")  # and of the last one there is no record
        while True:
            stat = Path(f"/proc/{killed.pid}/stat").read_text().rpartition(")")[2].split()
            if stat[0] == "Z":
                break
        assert asyncio.run(_mark(Settings(home=home))) == 2
        crashed = [state == "Crashed" for state in asyncio.run(_states(ids))]
        assert crashed == [True, False, False, True, False, False]
        assert asyncio.run(_mark(Settings(home=home))) == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.usefixtures("prefect_url")
def test_runs_that_never_began_are_marked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin() -> list[UUID]:
        async with get_client() as client:
            runner = Runner(name="test")
            await deployments._register(runner, client, FLOWS[Level.DISTRICT])
            deployment = await client.read_deployment_by_name(deployment_name(Level.DISTRICT))
            parameters = {"parameters": ResolveParameters(unit="d1").model_dump(mode="json")}
            of_runner = await client.create_flow_run_from_deployment(
                deployment.id, parameters=parameters, state=Scheduled()
            )
            await client.set_flow_run_state(of_runner.id, Pending(), force=True)
            of_command = await client.create_flow_run(district, parameters=parameters, state=Pending())
            return [of_runner.id, of_command.id]

    async def mark(starting: bool) -> int:
        async with get_client() as client:
            return await mark_crashed(client, Settings(home=home), starting=starting)

    ids = asyncio.run(begin())
    assert asyncio.run(mark(starting=False)) == 0
    assert asyncio.run(mark(starting=True)) == 1
    assert asyncio.run(_states(ids)) == ["Crashed", "Pending"]
    monkeypatch.setattr(runs, "_BEGINS_WITHIN", timedelta(0))
    assert asyncio.run(mark(starting=False)) == 1
    assert asyncio.run(_states(ids)) == ["Crashed", "Crashed"]


@pytest.mark.usefixtures("prefect_url")
def test_deployments_that_a_runner_paused_at_its_end_go_on_with_the_next() -> None:
    async def register() -> tuple[UUID, bool]:
        async with get_client() as client:
            await deployments._register(Runner(name="test"), client, FLOWS[Level.DISTRICT])
            found = await client.read_deployment_by_name(deployment_name(Level.DISTRICT))
            return found.id, found.paused

    async def pause(deployment: UUID) -> None:
        async with get_client() as client:
            await client.pause_deployment(deployment)

    made, paused = asyncio.run(register())
    assert not paused
    asyncio.run(pause(made))
    assert asyncio.run(register()) == (made, False)


@pytest.mark.usefixtures("prefect_url")
def test_the_schedules_of_earlier_versions_go() -> None:
    async def register() -> tuple[int, int]:
        async with get_client() as client:
            await Runner(name="test").aadd_flow(FLOWS[Level.DISTRICT], DEPLOYMENT, schedules=[Interval(300, slug="d1")])
            before = await client.read_deployment_by_name(deployment_name(Level.DISTRICT))
            await deployments._register(Runner(name="test"), client, FLOWS[Level.DISTRICT])
            return len(before.schedules), len(await client.read_deployment_schedules(before.id))

    assert asyncio.run(register()) == (1, 0)
