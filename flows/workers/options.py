"""What a worker is told when it is started. Imports no Prefect."""

from pydantic import Field

from flows.names import FlowRole
from schemas.levels import Code
from schemas.settings import Frozen, HostName


class WorkerOptions(Frozen):
    """Runs of which role it takes, how many at a time, which units' first, and what its host is called."""

    role: FlowRole
    units: tuple[Code, ...] = ()
    runs: int = Field(2, ge=1, le=64)
    name: HostName
