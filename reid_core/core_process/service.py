"""Answers on the home's Unix socket, which only its owner may open. See `reid_core.serving.wire` for the protocol.

python -P -m reid_core.core_process.service
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from reid_core.core_process.detection import Detectors
from reid_core.core_process.embedding import Embedders
from reid_core.core_process.places import Places
from reid_core.serving import wire
from reid_core.serving.core import ReIDCore
from reid_core.serving.unix_socket import listening
from schemas.disk import keep_private
from schemas.errors import CoreError, CoreUnavailable, ModelFileError, UrbanReidError
from schemas.logs import begin_logging
from schemas.settings import Settings, settings

T = TypeVar("T")


def application(embedders: Embedders, detectors: Detectors) -> FastAPI:
    """The HTTP interface of a home's models."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(UrbanReidError)
    async def _error(_: Request, error: UrbanReidError) -> JSONResponse:
        status = 503 if isinstance(error, CoreUnavailable) else 404 if isinstance(error, ModelFileError) else 400
        name = type(error).__name__
        kind = name if name in wire.ERRORS else CoreError.__name__
        return JSONResponse({"error": kind, "message": str(error)}, status, {"connection": "close"})

    @app.get("/jobs")
    async def _jobs() -> dict[str, int]:
        return {"embedding": embedders.jobs, "detection": detectors.jobs}

    @app.get("/models/{digest}")
    async def _model(digest: str) -> dict[str, str]:
        await asyncio.to_thread(embedders.folders.find, digest)
        return {"digest": digest}

    @app.post("/models/{digest}/embed")
    async def _embed(digest: str, request: Request) -> Response:
        return await compute(digest, request, np.uint8, lambda core, pictures: core.embed(pictures))

    @app.post("/models/{digest}/distances")
    async def _distances(digest: str, request: Request) -> Response:
        return await compute(digest, request, np.float64, lambda core, pairs: core.distances(pairs[0], pairs[1]))

    async def compute(
        digest: str, request: Request, dtype: type, job: Callable[[ReIDCore, NDArray[Any]], NDArray[np.floating]]
    ) -> Response:
        def submit(tensor: NDArray[Any]) -> Future[tuple[NDArray[np.floating], float]]:
            return embedders.submit(digest, lambda core: job(core, tensor))

        return _tensor_answer(*await answer(embedders, request, dtype, submit))

    @app.get("/detectors/{digest}")
    async def _detector(digest: str, request: Request) -> dict[str, Any]:
        nothing = np.empty((0, 0, 0, 3), np.uint8)
        model, _, _ = await answer(detectors, request, None, lambda _: detectors.submit(digest, nothing))
        return {"input": asdict(model.input), "sure": model.sure, "name": model.name}

    @app.post("/detectors/{digest}/find")
    async def _find(digest: str, request: Request) -> Response:
        _, found, seconds = await answer(
            detectors, request, np.uint8, lambda pictures: detectors.submit(digest, pictures)
        )
        counts = [len(people) for people in found]
        rows = np.column_stack([np.repeat(np.arange(len(found)), counts), np.concatenate(found)])
        return _tensor_answer(rows.astype(np.float64), seconds)

    return app


async def answer(
    places: Places, request: Request, dtype: type | None, submit: Callable[[NDArray[Any]], Future[T]]
) -> T:
    """What a job with the tensor of the request's body gives within its deadline; `dtype` None: without a body."""
    places.enter()
    try:
        deadline_s = wire.parse_deadline(request.headers.get(wire.DEADLINE))
        future = submit(np.empty(0) if dtype is None else await _tensor(request, dtype))
    except BaseException:
        places.leave()
        raise
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), deadline_s)
    except TimeoutError:
        raise CoreUnavailable(f"the core process is busy: no result within {deadline_s:.0f} s; try again") from None


def _tensor_answer(tensor: NDArray[np.floating], seconds: float) -> Response:
    headers = {wire.SHAPE: wire.format_shape(tensor.shape), wire.SECONDS: repr(seconds)}
    return Response(tensor.tobytes(), media_type="application/octet-stream", headers=headers)


async def _tensor(request: Request, dtype: type) -> NDArray[Any]:
    """The array in a request's body. Raises CoreError."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > wire.MAX_BODY_BYTES:
            raise CoreError(f"the body has more than {wire.MAX_BODY_BYTES} bytes")
    shape = wire.parse_shape(request.headers.get(wire.SHAPE), np.dtype(dtype).itemsize, len(body))
    if not shape[0] or (dtype is np.float64 and shape[0] != 2):
        raise CoreError(f"a tensor of shape {shape}; pictures are (n, H, W, 3), pairs (2, n, D)")
    return np.frombuffer(body, dtype).reshape(shape)


def run(settings: Settings) -> None:
    """Serves this home's models until SIGINT or SIGTERM. Raises CoreError if another process does already."""
    with listening(wire.socket_path(settings), "a core process") as listener:
        embedders, detectors = Embedders(settings), Detectors(settings)
        app = application(embedders, detectors)
        config = uvicorn.Config(
            app,
            log_config=None,  # warnings go where those of this process go
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            embedders.close()
            detectors.close()


def main() -> None:
    keep_private()
    # uvicorn stops on a signal and then raises it again: the cleanup after it must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        begin_logging(settings().log, "core")
        run(settings())
    except KeyboardInterrupt:
        return
    except UrbanReidError as error:
        logging.getLogger("urban_reid.core").critical("%s", error)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
