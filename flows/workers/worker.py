"""Our Prefect worker: a host that takes flow runs of one role from a work pool, each in a process of its own.

`python -P -m flows.workers.worker OPTIONS`, started by `urban-reid worker` with the environment of `flows.environment`;
OPTIONS are JSON, `WorkerOptions`. From Prefect's API it takes a flow's name and its parameters, checked by `accepted`.
Code, command, image and environment are those of this host, whatever the work pool, the deployment or the run say. See
docs/decisions/prefect-worker.md.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import InfrastructureNotFound, PrefectException
from prefect.states import Cancelled, Scheduled
from prefect.utilities.callables import parameter_schema
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from sqlalchemy import text

from flows.environment import ends_with_parent
from flows.names import OF_WORKERS, FlowRole, pool_name
from flows.runs import delete_passing, forget_dead
from flows.training import resume_promoted
from flows.workers.accepted import ACCEPTED, accepted
from flows.workers.lost import forget, take_over, worker_of
from flows.workers.options import WorkerOptions
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.errors import StoreError, UrbanReidError
from schemas.levels import is_within
from schemas.logs import begin_logging
from schemas.settings import settings

#: A run of units that are not this worker's is left to others for so long after it was first seen.
LEFT_TO_OTHERS_S = 15.0
#: A run's state is looked at so often while its process works: it may be canceled, or taken over by another worker.
_LOOK_S = 5.0
_END_WITHIN_S = 20.0
_SWEEP_EVERY_S = 3600.0
_TAKING_OVER = text("SELECT pg_try_advisory_xact_lock(hashtextextended('urban_reid lost workers ' || :pool, 0))")

_log = logging.getLogger("urban_reid.worker")


class Job(BaseJobConfiguration):
    """Nothing of it comes from the API: pools, deployments and runs have no say in how a run is started."""

    @classmethod
    async def from_template_and_values(cls, *_: Any, **__: Any) -> "Job":
        return cls()

    @classmethod
    async def resolve_for_flow_run(cls, *_: Any, **__: Any) -> "Job":
        return cls()


class FlowWorker(BaseWorker[Job, BaseVariables, BaseWorkerResult]):
    """A worker of one role."""

    type = "urban-reid"
    job_configuration = Job
    _description = "Runs the flows of urban-reid on a host that has it; the pool's template is not read."
    _display_name = "urban-reid"

    def __init__(self, options: WorkerOptions, store: Store) -> None:
        self._lost_s = store.settings.host_lost_s
        super().__init__(
            pool_name(options.role),
            name=f"{options.name}-{secrets.token_hex(3)}",  # another life is another worker
            limit=options.runs,
            prefetch_seconds=0,
            heartbeat_interval_seconds=max(1, round(self._lost_s / 5)),
        )
        self._options, self._store = options, store
        self._first_seen: dict[object, float] = {}
        self._swept_at = -float("inf")
        self._is_registered = False
        self._steady_since = float("inf")  # since when each heartbeat was taken, by the monotonic clock

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """A template that the API takes, and that nobody reads."""
        return {"job_configuration": {"name": "urban-reid"}, "variables": {"type": "object", "properties": {}}}

    async def sync_with_backend(self) -> None:
        """Sends the heartbeat, and looks after what nobody else does: runs of lost workers, old runs.

        Prefect's base class ends a worker, and with it the runs, whose server is away for some minutes.
        """
        try:
            await super().sync_with_backend()
        except httpx.HTTPError as error:
            self._note_away(error)
            self._steady_since = float("inf")
            return
        self._steady_since = min(self._steady_since, time.monotonic())
        if self._work_pool is None:
            return
        try:
            if not self._is_registered:
                await register(self.client, self._options.role)
                self._is_registered = True
            await self._look_after_runs()
        except (StoreError, httpx.HTTPError, PrefectException) as error:
            _log.warning("tried again at the next sign of life: %s", error)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        try:
            return await super().get_and_submit_flow_runs()
        except httpx.HTTPError as error:
            self._note_away(error)
            return []

    def _note_away(self, error: httpx.HTTPError) -> None:
        """Says that Prefect is away, once; raises what no wait mends."""
        if not isinstance(error, httpx.TransportError) and not (
            isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500
        ):
            raise error
        if self._steady_since < float("inf"):
            _log.warning("Prefect does not answer (%s); it is asked again", type(error).__name__)

    async def _look_after_runs(self) -> None:
        if time.monotonic() - self._steady_since < self._lost_s:
            return  # Prefect was away, and others have not told it yet that they live
        with self._store.begin() as connection:
            if not connection.scalar(_TAKING_OVER, {"pool": self._work_pool_name}):
                return  # another worker is just at it
            for run in await take_over(self.client, self._work_pool_name, self._lost_s):
                _log.warning("%s: its worker %s was lost, and it is begun again", run.name, worker_of(run))
            if self._options.role == "training":
                await resume_promoted(self.client, self._store)
            if time.monotonic() - self._swept_at > _SWEEP_EVERY_S:
                self._swept_at = time.monotonic()
                await delete_passing(self.client)

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Runs that are due, those of this worker's units first; others once nobody else has taken them for a while."""
        found = await super()._get_scheduled_flow_runs()
        now = time.monotonic()
        self._first_seen = {entry.flow_run.id: self._first_seen.get(entry.flow_run.id, now) for entry in found}
        waited = {entry.flow_run.id: now - self._first_seen[entry.flow_run.id] for entry in found}
        ours = [entry for entry in found if self._is_ours(entry.flow_run)]
        others = [entry for entry in found if entry not in ours and waited[entry.flow_run.id] > LEFT_TO_OTHERS_S]
        return ours + others

    def _is_ours(self, run: FlowRun) -> bool:
        given = run.parameters.get("parameters")
        unit = given.get("unit") if isinstance(given, dict) else None
        units = self._options.units
        return not units or not isinstance(unit, str) or any(is_within(unit, one) for one in units)

    async def run(
        self, flow_run: FlowRun, configuration: Job, task_status: anyio.abc.TaskStatus[Any] | None = None
    ) -> BaseWorkerResult:
        flow = (await self.client.read_flow(flow_run.flow_id)).name
        _, parameters = accepted(self._options.role, flow, flow_run.parameters)
        asked = {"role": self._options.role, "flow": flow, "run": str(flow_run.id)}
        process = await _start(asked | {"parameters": parameters.model_dump(mode="json")})
        if task_status is not None:
            task_status.started(f"{self.name}:{process.pid}")
        try:
            status = await self._end_of(process, flow_run)
        except BaseException:  # this worker ends
            await _kill(process)
            with anyio.move_on_after(_END_WITHIN_S, shield=True):
                await self._hand_back(flow_run)
            raise
        return BaseWorkerResult(identifier=str(process.pid), status_code=status)

    async def _end_of(self, process: asyncio.subprocess.Process, run: FlowRun) -> int:
        """The process's exit status; 0 where the run is no longer this worker's, and its process was killed."""
        ended = asyncio.ensure_future(process.wait())
        while True:
            await asyncio.wait((ended,), timeout=_LOOK_S)
            if ended.done():
                return ended.result()
            try:
                now = await self.client.read_flow_run(run.id)
                if now.state is not None and now.state.type is StateType.CANCELLING:
                    await self.client.set_flow_run_state(run.id, Cancelled(), force=True)
                    await _kill(process)
                    return 0
            except (httpx.HTTPError, PrefectException):  # Prefect is away; the work goes on
                continue
            if worker_of(now) != self.name or (now.state is not None and now.state.type is StateType.SCHEDULED):
                _log.warning("%s: another worker has taken it over, and it is ended here", run.name)
                await _kill(process)
                return 0

    async def _hand_back(self, run: FlowRun) -> None:
        """Has another worker begin a run whose process was ended with this worker."""
        now = await self.client.read_flow_run(run.id)
        if now.state is not None and not now.state.is_final() and worker_of(now) == self.name:
            again: State[None] = Scheduled(message="Its worker was ended.")
            await self.client.set_flow_run_state(run.id, again, force=True)

    async def kill_infrastructure(self, infrastructure_pid: str, configuration: Job, grace_seconds: int = 30) -> None:
        raise InfrastructureNotFound("a run's process is ended by the worker that started it")


async def register(client: PrefectClient, role: FlowRole) -> None:
    """Registers the role's flows as deployments of its work pool, which is there."""
    for name, (flow, _) in ACCEPTED[role].items():
        await client.create_deployment(
            await client.create_flow_from_name(name),
            OF_WORKERS,
            work_pool_name=pool_name(role),
            description=flow.description,
            parameter_openapi_schema=parameter_schema(flow).model_dump(mode="json"),
            enforce_parameter_schema=True,
        )


async def _start(asked: Mapping[str, object]) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "flows.workers.one_run"),
        stdin=asyncio.subprocess.PIPE,
        env=os.environ | {"PREFECT__FLOW_RUN_ID": str(asked["run"])},
        preexec_fn=ends_with_parent(signal.SIGKILL),
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked).encode())
    process.stdin.close()
    return process


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends a run's process: what it has not committed is rolled back."""
    if process.returncode is None:
        process.kill()
        with anyio.CancelScope(shield=True):
            await process.wait()


async def _work(options: WorkerOptions) -> None:
    with Store.open(settings(), f"urban-reid worker {options.role}") as store:
        forget_dead(settings())
        worker = FlowWorker(options, store)
        working = asyncio.ensure_future(worker.start(printer=_log.info))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        with suppress(asyncio.CancelledError):
            await working
    async with get_client() as client:
        with suppress(httpx.HTTPError, PrefectException):
            await forget(client, worker.name, pool_name(options.role))


def main() -> int:
    keep_private()
    try:
        begin_logging(settings().log, "worker")
        asyncio.run(_work(WorkerOptions.model_validate_json(sys.argv[1])))
    except UrbanReidError as error:
        _log.critical("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
