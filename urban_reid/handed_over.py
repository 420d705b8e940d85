"""Resolves of closed windows that workers run: handed over to their work pool, and looked at until they end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectException

from flows.environment import connected
from flows.names import deployment_name
from flows.runs import WINDOWS
from flows.server import PrefectServer
from schemas.errors import FlowError
from schemas.levels import level_of
from schemas.parameters import ResolveParameters
from schemas.settings import Settings

#: After so long it is said that no worker has begun a run, seconds.
_SAY_AFTER_S = 60.0


@dataclass
class _Run:
    parameters: ResolveParameters
    began: float
    told: bool = False


class HandedOver:
    """The runs that were handed over and have not ended, one at a time of a unit."""

    def __init__(self, client: SyncPrefectClient, say: Callable[[object], None]) -> None:
        self._client, self._say = client, say
        self._runs: dict[UUID, _Run] = {}

    def hand(self, parameters: ResolveParameters) -> None:
        """Has a worker resolve a unit, unless one is at it already. Raises FlowError."""
        if any(run.parameters.unit == parameters.unit for run in self._runs.values()):
            return
        name = deployment_name(level_of(parameters.unit), "workers")
        given = {"parameters": parameters.model_dump(mode="json")}
        with _errors(name):
            deployment = self._client.read_deployment_by_name(name)
            run = self._client.create_flow_run_from_deployment(deployment.id, parameters=given, tags=[WINDOWS])
        self._runs[run.id] = _Run(parameters, time.monotonic())

    def ended(self) -> Iterator[tuple[ResolveParameters, float, float]]:
        """The runs that have ended since the last call, with start and end by the monotonic clock. Raises FlowError."""
        for run in list(self._runs):
            handed, now = self._runs[run], time.monotonic()
            unit = handed.parameters.unit
            try:
                with _errors(unit):
                    state = self._client.read_flow_run(run).state
            except _Gone:
                state = None  # somebody deleted it
            if state is not None and not state.is_final():
                if state.is_scheduled() and not handed.told and now - handed.began > _SAY_AFTER_S:
                    self._say(f"{unit}: no worker has begun the run yet; is `urban-reid worker --role resolve` up?")
                    handed.told = True
                continue
            del self._runs[run]
            if state is None or not state.is_completed():
                how = "was deleted" if state is None else f"ended as {state.name}"
                self._say(f"{unit}: the run {how}; errors.log of the host that ran it says more")
            yield handed.parameters, handed.began, now


class _Gone(FlowError):
    """Prefect does not know what was asked for."""


@contextmanager
def handing_over(settings: Settings, say: Callable[[object], None]) -> Iterator[HandedOver]:
    """Hands over through the user-supplied Prefect server, for as long as the block lasts."""
    with PrefectServer(settings) as server, connected(settings, server.url), get_client(sync_client=True) as client:
        yield HandedOver(client, say)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except ObjectNotFound:
        raise _Gone(f"{what}: Prefect knows no such deployment or run; is `urban-reid worker` up on a host?") from None
    except (httpx.HTTPError, PrefectException) as error:
        raise FlowError(f"{what}: Prefect does not answer: {type(error).__name__}") from None
