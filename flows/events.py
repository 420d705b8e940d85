"""How a command sends a run's events to Prefect: as long as Prefect takes them, and not any longer.

Prefect's own client tries for seconds with each event, and a command would not end before all were tried.
"""

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from prefect.events.clients import PrefectEventsClient
from prefect.events.schemas.events import Event
from prefect.events.worker import EventsWorker

#: For a connection, or one event; Prefect's client connects anew meanwhile.
_PATIENCE_S = 10.0


class BoundedEvents(PrefectEventsClient):
    """Gives up for good after one event that Prefect did not take."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gone = False

    async def __aenter__(self) -> Self:
        try:
            await asyncio.wait_for(super().__aenter__(), _PATIENCE_S)
        except Exception:
            self._gone = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(Exception):
            await asyncio.wait_for(super().__aexit__(kind, error, trace), _PATIENCE_S)

    async def emit(self, event: Event) -> None:
        if self._gone:
            return
        try:
            await asyncio.wait_for(super().emit(event), _PATIENCE_S)
        except Exception:
            self._gone = True


def bound_reports() -> None:
    """Makes this process end soon after its run, and quietly, whatever became of Prefect meanwhile."""
    EventsWorker.set_client_override(BoundedEvents)
    logging.raiseExceptions = False  # logs that Prefect does not take are no news beside the run's own warning
