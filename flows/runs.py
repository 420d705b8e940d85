"""Which process runs which flow run, so that a run whose process was killed does not stay "Running" for ever.

While a run lasts, HOME/prefect/runs/ID names its host and process. A process is told from a later one with the same
number by when it started.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect import tags
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from schemas.disk import write_whole
from schemas.settings import Settings, settings

#: Tags of runs that are deleted after a day: those that found nothing to do, and those that `up` starts as windows
#: close, of which a city has hundreds a day.
_EMPTY, WINDOWS = "nothing to do", "windows"
_KEPT = timedelta(days=1)
#: A run that is pending for longer has no process any more.
_BEGINS_WITHIN = timedelta(minutes=10)


def _folder(of: Settings) -> Path:
    return of.home / "prefect" / "runs"


def _started(process: int) -> str | None:
    """When a process of this host started, in a form that no later process has; None where it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


@contextmanager
def recorded() -> Iterator[None]:
    """Records that this process runs the flow run of this context, as long as it does."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    file = _folder(settings()) / str(context.flow_run.id)
    with suppress(OSError):  # such as a full disk; then the run is not marked if this process is killed
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = os.getpid()
        record = {"host": socket.gethostname(), "process": process, "started": _started(process)}
        write_whole(file, json.dumps(record), mode=0o600)
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _dead(file: Path) -> bool | None:
    """Whether the recorded process is dead; None where that cannot be known here."""
    try:
        record = json.loads(file.read_bytes())
        host, process, started = str(record["host"]), int(record["process"]), str(record["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if host != socket.gethostname() or started == "None":
        return None
    return _started(process) != started


def forget_dead(of: Settings) -> None:
    """Removes the records of dead processes, whose runs a worker's loss has had begun again."""
    for file in _folder(of).glob("*-*"):
        if _dead(file) is True:
            file.unlink(missing_ok=True)


async def mark_empty() -> None:
    """Marks the flow run of this context as one that found nothing to do, so that it is deleted after a day."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and isinstance(context.client, PrefectClient):
        await context.client.update_flow_run(context.flow_run.id, tags=[_EMPTY])


def of_windows() -> AbstractContextManager[object]:
    """Flow runs that begin in this context are those of windows that have closed."""
    return tags(WINDOWS)


async def delete_passing(client: PrefectClient) -> int:
    """Deletes runs that found nothing, and runs of closed windows, a day after their end. Returns their number."""
    deleted = 0
    yesterday = datetime.now(UTC) - _KEPT
    what = FlowRunFilter.model_validate({"tags": {"any_": [_EMPTY, WINDOWS]}, "end_time": {"before_": yesterday}})
    while runs := await client.read_flow_runs(flow_run_filter=what, sort=FlowRunSort.ID_DESC, limit=200):
        for run in runs:
            await client.delete_flow_run(run.id)
        deleted += len(runs)
    return deleted


async def mark_crashed(client: PrefectClient, of: Settings, *, starting: bool) -> int:
    """Marks the runs whose recorded process is dead as crashed, and those that never began. Returns their number.

    `starting`: the runner starts, so that no process of an earlier one is about to begin a run of a deployment.
    """
    marked = 0
    for file in sorted(_folder(of).glob("*-*")):
        if _dead(file) is not True:
            continue
        run = UUID(file.name)
        try:
            state = (await client.read_flow_run(run)).state
        except ObjectNotFound:
            state = None
        if state is not None and state.type is StateType.RUNNING:
            await client.set_flow_run_state(run, Crashed(message="Its process was killed."), force=True)
            marked += 1
        file.unlink(missing_ok=True)
    if of.prefect_url is not None:
        return marked  # who else starts runs on a server that the user supplies is not known
    pending = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.PENDING]}}})
    for waiting in await client.read_flow_runs(flow_run_filter=pending, sort=FlowRunSort.ID_DESC, limit=200):
        since = waiting.state.timestamp if waiting.state is not None else None
        stuck = since is not None and datetime.now(UTC) - since > _BEGINS_WITHIN
        if stuck or (starting and waiting.deployment_id is not None):
            message = "Its process was killed before it began."
            await client.set_flow_run_state(waiting.id, Crashed(message=message), force=True)
            marked += 1
    return marked
