"""How a command reports a run to Prefect: as long as Prefect takes what it is sent, and not any longer.

Prefect's own clients try for seconds with each request and each event, and a command would not end before all were
tried. After one that Prefect did not answer in time, nothing more is sent.
"""

import asyncio
import logging
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.events.clients import PrefectEventsClient
from prefect.events.schemas.events import Event
from prefect.events.worker import EventsWorker

#: For a request with its new tries, a connection, or one event; Prefect's client connects anew meanwhile.
_PATIENCE_S = 10.0
_WHY = f"its server did not answer within {_PATIENCE_S:.0f} s"
#: Set when Prefect has not answered in time.
_gone = threading.Event()

_send, _send_sync = PrefectHttpxAsyncClient.send, PrefectHttpxSyncClient.send


async def _bounded_send(client: PrefectHttpxAsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    _refuse_if_gone(request)
    try:
        return await asyncio.wait_for(_send(client, request, **options), _PATIENCE_S)
    except (TimeoutError, httpx.TimeoutException):
        _gone.set()
        raise httpx.ReadTimeout(_WHY, request=request) from None


def _bounded_send_sync(client: PrefectHttpxSyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
    _refuse_if_gone(request)
    try:
        return _send_sync(client, request, **options)
    except httpx.TimeoutException:
        _gone.set()
        raise


def _refuse_if_gone(request: httpx.Request) -> None:
    if _gone.is_set():
        raise httpx.ReadTimeout(_WHY, request=request)


class BoundedEvents(PrefectEventsClient):
    """Gives up for good after one event that Prefect did not take."""

    async def __aenter__(self) -> Self:
        if not _gone.is_set():
            try:
                await asyncio.wait_for(super().__aenter__(), _PATIENCE_S)
            except Exception:
                _gone.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception):
            await asyncio.wait_for(super().__aexit__(kind, error, trace), 1.0 if _gone.is_set() else _PATIENCE_S)

    async def emit(self, event: Event) -> None:
        if _gone.is_set():
            return
        try:
            await asyncio.wait_for(super().emit(event), _PATIENCE_S)
        except Exception:
            _gone.set()


def bound_reports() -> None:
    """Makes this process end soon after its run, and quietly, whatever became of Prefect meanwhile."""
    _gone.clear()  # of an earlier run of this process
    EventsWorker.set_client_override(BoundedEvents)
    PrefectHttpxAsyncClient.send = _bounded_send  # type: ignore[method-assign,assignment]
    PrefectHttpxSyncClient.send = _bounded_send_sync  # type: ignore[method-assign,assignment]
    logging.raiseExceptions = False  # logs that Prefect does not take are no news beside the run's own warning
