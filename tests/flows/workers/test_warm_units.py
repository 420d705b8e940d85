"""A worker takes runs of its own units at once, and those of others once nobody else has."""

import asyncio
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows.names import OF_WORKERS, pool_name
from flows.workers import worker
from flows.workers.lost import forget
from flows.workers.options import WorkerOptions
from flows.workers.worker import FlowWorker
from pipeline.store import Store


@pytest.mark.usefixtures("prefect_url")
def test_runs_of_a_workers_units_come_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        options = WorkerOptions(role="resolve", units=("d2", "d3/s1"), runs=2, name="host")
        async with FlowWorker(options, store) as host, get_client() as client:
            runs: dict[str, UUID] = {}
            for unit in ("d1", "d2", "d3/s1/b1", "d3/s10"):
                level = {0: "district", 1: "street", 2: "building"}[unit.count("/")]
                deployment = await client.read_deployment_by_name(f"{level}/{OF_WORKERS}")
                given = {"parameters": {"unit": unit}}
                runs[unit] = (await client.create_flow_run_from_deployment(deployment.id, parameters=given)).id

            async def taken() -> list[str]:
                by_run = {run: unit for unit, run in runs.items()}
                found = await host._get_scheduled_flow_runs()
                return [by_run[entry.flow_run.id] for entry in found if entry.flow_run.id in by_run]

            assert sorted(await taken()) == ["d2", "d3/s1/b1"]
            monkeypatch.setattr(worker, "LEFT_TO_OTHERS_S", -1.0)
            found = await taken()
            assert sorted(found[:2]) == ["d2", "d3/s1/b1"] and sorted(found[2:]) == ["d1", "d3/s10"]
            for run in runs.values():
                await client.set_flow_run_state(run, Running(), force=True)
            await forget(client, host.name, pool_name("resolve"))

    asyncio.run(check())
