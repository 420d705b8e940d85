"""The search process: keeps the index and the models warm, and answers written requests on the home's Unix socket.

python -P -m pipeline.search.service

Only the home's owner may open the socket. A request is answered under the session that wrote it, as the database knows
it, and a caller who is signed in must be of the account that wrote it. See `client` for the protocol.
"""

import asyncio
import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, model_in_use
from pipeline.search.answer import Answer, answer
from pipeline.search.client import SESSION, AnswerMessage, socket_path
from pipeline.search.fast_distances import FastDistances
from pipeline.search.index import Index
from pipeline.store import Store
from reid_core.files import load_diff_attention, load_model
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from reid_core.serving.unix_socket import listening
from schemas.disk import keep_private
from schemas.errors import CoreUnavailable, InputError, UrbanReidError
from schemas.levels import Level
from schemas.logs import begin_logging
from schemas.settings import Settings, settings

#: Searches that are read, compared or written at once, and those that wait.
_THREADS, _WAITING = 4, 64


#: Others of the case see a request too, and a verifier among them no figure of it.
_IS_OWN = text(
    "SELECT EXISTS (SELECT FROM search_request WHERE id = :id AND account_id IS NOT DISTINCT FROM (granted()).account)"
)

_log = logging.getLogger("urban_reid.search")


class Searches:
    """What is kept between searches. Safe for threads."""

    def __init__(self, store: Store) -> None:
        self._store, self._crops = store, CropStore(store.settings)
        self.index = Index(store, self._fast)
        self._lock = threading.Lock()
        self._opened: dict[int, FastDistances] = {}
        self._cores: dict[int, ReIDCore] = {}

    def warm(self) -> None:
        """Reads the districts into memory, so that no search has to wait for it."""
        try:
            with self._store.begin() as connection:
                model = model_in_use(connection)
            self._core(model)
            self._fast(model)
            for unit in read_city(self._store).units:
                if unit.level is Level.DISTRICT:
                    with self.index.held(model, unit.code):
                        pass
        except UrbanReidError as error:  # of an empty home too; the first search is told what stands in its way
            _log.info("nothing is kept in memory yet: %s", error)

    def answer(self, request: UUID, token: str | None = None) -> Answer:
        """token: of the session that asks; None: a flow's run, which has the request alone."""
        if token:
            with self._store.under(SecretStr(token)).signed_in() as connection:
                if not connection.scalar(_IS_OWN, {"id": request}):
                    raise InputError(f"no search was asked for as {request}", do="`urban-reid search` writes a request")
        return answer(self._store, self._core, self._crops, request, self.index)

    def _core(self, model: ModelRow) -> ReIDCore:
        with self._lock:
            if model.id not in self._cores:
                self._cores[model.id] = open_core(self._store.settings, model.directory(self._store.settings))
            return self._cores[model.id]

    def _fast(self, model: ModelRow) -> FastDistances:
        with self._lock:
            if model.id not in self._opened:
                directory = model.directory(self._store.settings)
                if model.card.engine == "torch":
                    module = load_model(directory).eval().diff_attention
                else:
                    module = load_diff_attention(directory, model.card)
                self._opened[model.id] = FastDistances(module)
            return self._opened[model.id]


def application(searches: Searches) -> FastAPI:
    """The HTTP interface."""
    app = FastAPI(openapi_url=None)
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="search")
    waiting = 0

    @app.exception_handler(UrbanReidError)
    async def _error(_: Request, error: UrbanReidError) -> JSONResponse:
        return JSONResponse({"error": type(error).__name__, "message": error.fact, "do": error.do}, 400)

    @app.post("/requests/{request_id}")
    async def _answer(request_id: UUID, request: Request) -> AnswerMessage:
        nonlocal waiting
        if waiting >= _WAITING:
            raise CoreUnavailable(f"the search process is busy with {waiting} searches; try again")
        waiting += 1
        try:
            token = request.headers.get(SESSION)
            found = await asyncio.get_running_loop().run_in_executor(threads, searches.answer, request_id, token)
        finally:
            waiting -= 1
        return AnswerMessage(request=found.request, result=found.result)

    return app


def run(settings: Settings) -> None:
    """Serves this home's searches until SIGINT or SIGTERM. Raises CoreError if another process does already."""
    torch.set_num_threads(1)  # what compares has threads of its own
    with (
        listening(socket_path(settings), "a search process") as listener,
        Store.open(settings, "urban-reid search process") as store,
    ):
        searches = Searches(store)
        threading.Thread(target=searches.warm, name="warm", daemon=True).start()
        config = uvicorn.Config(
            application(searches),
            log_config=None,  # warnings go where those of this process go
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    keep_private()
    # uvicorn stops on a signal and then raises it again: the cleanup after it must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        begin_logging(settings().log, "search")
        run(settings())
    except KeyboardInterrupt:
        return
    except UrbanReidError as error:
        _log.critical("%s", error)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
