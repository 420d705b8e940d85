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

from schemas.logs import in_words

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


@dataclass(frozen=True)
class _Server:
    """The Prefect server that is told. Not that of Prefect's settings, which are a thread's: where they name none,
    Prefect starts one.
    """

    url: str
    secret: str | None
    key: str | None


@dataclass
class Answers:
    """What is to be told. Safe for threads."""

    _waiting: "queue.Queue[tuple[Answered, _Server]]" = field(default_factory=lambda: queue.Queue(_WAITING))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def tell(self, answered: Answered) -> None:
        """Tells it after a while; nothing where this process has no Prefect, as without `urban-reid up`."""
        url, secret, key = map(os.environ.get, ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"))
        if url is None:
            return
        try:
            self._waiting.put_nowait((answered, _Server(url, secret, key)))
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
            answered, server = self._waiting.get()
            try:
                asyncio.run(_report(answered, server))
            except (httpx.HTTPError, PrefectException, RuntimeError) as error:
                _log.warning("Prefect does not show the search %s: %s", answered.request, type(error).__name__)
            except Exception as error:  # the thread must not end
                _log.warning("Prefect does not show the search %s: %s", answered.request, in_words(error))
            finally:
                self._waiting.task_done()


async def _report(answered: Answered, server: _Server) -> None:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import State
    from prefect.states import Completed, Failed, Running

    from flows.search import search

    took_s = (answered.ended - answered.began).total_seconds()  # Prefect dates the states of a run by its own clock
    if answered.error:
        end: State[None] = Failed(message=f"{answered.error} after {took_s:.2f} s")
    else:
        end = Completed(message=f"{answered.unit}: {answered.hits} hits in {took_s:.2f} s")
    async with PrefectClient(server.url, auth_string=server.secret, api_key=server.key) as client:
        parameters = {"parameters": {"request": str(answered.request)}}
        run = await client.create_flow_run(search, parameters=parameters, state=Running())
        await client.set_flow_run_state(run.id, end, force=True)
