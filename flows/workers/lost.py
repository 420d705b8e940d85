"""Flow runs whose worker is lost: marked as crashed, and scheduled again, so that another worker takes them.

A worker is lost when its last heartbeat is older than `lost_s`, by the clock of Prefect's server. One that was only cut
off may still be at work: a unit's lock and the runs' keys make a second run of it harmless, and it ends its own when it
sees that another has taken it.
"""

from datetime import datetime, timedelta

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed, Scheduled

#: A run that was begun so often, and whose worker was lost each time, is not begun again.
MOST_STARTS = 5
_AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_WORKER = "prefect.worker.name"


def worker_of(run: FlowRun) -> str | None:
    """The name of the worker that took the run last."""
    name = run.labels.get(_WORKER)
    return None if name is None else str(name)


async def take_over(client: PrefectClient, pool: str, lost_s: float) -> list[FlowRun]:
    """Schedules the runs of lost workers of a pool again, and forgets these workers. Returns the runs.

    To be called by one worker at a time, just after its own heartbeat, by which the server's time is known.
    """
    workers = await client.read_workers_for_work_pool(pool, offset=0, limit=200)
    times = {worker.name: worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time}
    if not times:
        return []
    now, after = max(times.values()), timedelta(seconds=lost_s)
    living = {name for name, at in times.items() if now - at <= after}
    runs = await client.read_flow_runs(
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [pool]}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": _AT_WORK}}}),
        sort=FlowRunSort.ID_DESC,
        limit=200,
    )
    taken = [run for run in runs if _is_lost(run, living, now, after)]
    for run in taken:
        await _schedule_again(client, run)
    for name in times.keys() - living:
        await forget(client, name, pool)
    return taken


async def forget(client: PrefectClient, worker: str, pool: str) -> None:
    """Takes a worker off the list of its pool's workers."""
    path = {"work_pool_name": pool, "name": worker}
    await client.request("DELETE", "/work_pools/{work_pool_name}/workers/{name}", path_params=path)


def _is_lost(run: FlowRun, living: set[str], now: datetime, after: timedelta) -> bool:
    worker, state = worker_of(run), run.state
    if worker in living or state is None:
        return False
    # Between two workers a run is pending, and its label names the worker of before.
    return state.type is not StateType.PENDING or now - state.timestamp > after


async def _schedule_again(client: PrefectClient, run: FlowRun) -> None:
    assert run.state is not None
    message = f"Its worker {worker_of(run) or ''} was lost.".replace("  ", " ")
    if run.state.type is StateType.CANCELLING:
        await client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
        return
    await client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    if run.run_count < MOST_STARTS:
        await client.set_flow_run_state(run.id, Scheduled(message="Begun again by another worker."), force=True)
