"""Searches that a warm process answered, told to Prefect as runs of the flow `search` once their answer is given.

Prefect is told what a run of the flow tells it: the request's id, the unit, the number of hits or the kind of error. No
search waits for it, and none fails because of it.
"""

import asyncio
import logging
import os
import queue
import threading
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

_log = logging.getLogger("urban_reid.console")
#: Searches that wait to be told; of more, the latest are not.
_WAITING = 1_000


@dataclass(frozen=True)
class Answered:
    request: UUID
    unit: str
    began: datetime
    ended: datetime
    hits: int = 0
    error: str = ""  # its class; empty where it was answered


@dataclass
class Answers:
    """What is to be told. Safe for threads."""

    _waiting: "queue.Queue[Answered]" = field(default_factory=lambda: queue.Queue(_WAITING))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def tell(self, answered: Answered) -> None:
        """Tells it after a while; nothing where this process has no Prefect, as without `urban-reid up`."""
        if "PREFECT_API_URL" not in os.environ:
            return
        try:
            self._waiting.put_nowait(answered)
        except queue.Full:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Until all is told that is to be."""
        self._waiting.join()

    def _run(self) -> None:
        import httpx
        from prefect.exceptions import PrefectException

        while True:
            answered = self._waiting.get()
            try:
                asyncio.run(_report(answered))
            except (httpx.HTTPError, PrefectException, RuntimeError) as error:
                _log.warning("Prefect does not show the search %s: %s", answered.request, type(error).__name__)
            finally:
                self._waiting.task_done()


async def _report(answered: Answered) -> None:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State
    from prefect.states import Completed, Failed, Running

    from flows.search import search

    took_s = (answered.ended - answered.began).total_seconds()  # Prefect dates the states of a run by its own clock
    if answered.error:
        end: State[None] = Failed(message=f"{answered.error} after {took_s:.2f} s")
    else:
        end = Completed(message=f"{answered.unit}: {answered.hits} hits in {took_s:.2f} s")
    # Not Prefect's settings, which are a thread's: where they name no server, Prefect starts one.
    server = os.environ["PREFECT_API_URL"]
    secret, key = os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_API_KEY")
    async with PrefectClient(server, auth_string=secret, api_key=key) as client:
        parameters = {"parameters": {"request": str(answered.request)}}
        run = await client.create_flow_run(search, parameters=parameters, state=Running())
        await client.set_flow_run_state(run.id, end, force=True)
