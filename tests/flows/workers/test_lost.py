"""Runs of lost workers, on a real server: begun again, whatever they were doing, and no run of a worker that lives."""

import asyncio
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Cancelling, Completed, Pending, Running, Scheduled

from flows.resolve import district
from flows.workers import lost
from flows.workers.lost import take_over
from schemas.parameters import ResolveParameters

#: Less than passes between two calls of the server.
AT_ONCE_S = 0.0005


async def _pool(client: PrefectClient) -> str:
    name = f"pool-{uuid4().hex[:8]}"
    await client.create_work_pool(WorkPoolCreate(name=name, type="urban-reid"))
    return name


async def _run(client: PrefectClient, pool: str, worker: str | None, *states: object) -> UUID:
    parameters = {"parameters": ResolveParameters(unit="d1").model_dump(mode="json")}
    run = await client.create_flow_run(district, parameters=parameters, state=Scheduled(), work_pool_name=pool)
    if worker is not None:
        await client.update_flow_run_labels(run.id, {"prefect.worker.name": worker})
    for state in states:
        await client.set_flow_run_state(run.id, state, force=True)  # type: ignore[arg-type]
    return run.id


async def _states(client: PrefectClient, runs: list[UUID]) -> list[str]:
    return [str((await client.read_flow_run(run)).state_name) for run in runs]


@pytest.mark.usefixtures("prefect_url")
def test_the_runs_of_a_lost_worker_alone_are_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with get_client() as client:
            pool = await _pool(client)
            await client.send_worker_heartbeat(pool, "gone", 1)
            gone = [
                await _run(client, pool, "gone", Running()),
                await _run(client, pool, "gone", Pending()),
                await _run(client, pool, None, Pending()),  # its worker was killed before it gave its name
                await _run(client, pool, "gone", Running(), Cancelling()),
            ]
            other = [
                await _run(client, pool, "lives", Running()),
                await _run(client, pool, "gone", Running(), Completed()),
                await _run(client, pool, None),
            ]
            await client.send_worker_heartbeat(pool, "lives", 1)
            assert await take_over(client, pool, 3600) == []
            taken = await take_over(client, pool, AT_ONCE_S)
            assert {run.id for run in taken} == set(gone)
            assert await _states(client, gone) == ["Scheduled", "Scheduled", "Scheduled", "Cancelled"]
            assert await _states(client, other) == ["Running", "Completed", "Scheduled"]
            assert [worker.name for worker in await client.read_workers_for_work_pool(pool, offset=0, limit=9)] == [
                "lives"
            ]
            assert await take_over(client, pool, AT_ONCE_S) == []
            monkeypatch.setattr(lost, "MOST_STARTS", 1)
            poison = await _run(client, pool, "gone", Running())
            await take_over(client, pool, AT_ONCE_S)
            assert await _states(client, [poison]) == ["Crashed"]

    asyncio.run(check())


@pytest.mark.usefixtures("prefect_url")
def test_a_run_that_another_worker_is_just_beginning_is_left_alone() -> None:
    async def check() -> None:
        async with get_client() as client:
            pool = await _pool(client)
            await client.send_worker_heartbeat(pool, "lives", 1)
            begun = await _run(client, pool, "gone", Pending())  # its label is that of the worker of before
            assert await take_over(client, pool, AT_ONCE_S) == []
            assert await _states(client, [begun]) == ["Pending"]

    asyncio.run(check())
