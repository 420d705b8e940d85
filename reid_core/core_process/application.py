"""The HTTP interface of a core. See `reid_core.serving.wire` for the protocol."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from reid_core.core_process.detection import Result as Detected
from reid_core.core_process.embedding import Result as Computed
from reid_core.serving import wire
from schemas.errors import CoreError, CoreUnavailable, ModelFileError, UrbanReidError

T = TypeVar("T")
#: A body comes within so long, seconds: a host that is gone keeps no place.
BODY_WITHIN_S = 60.0
#: What a queued request will give: a thread's future, or one of the event loop.
Queued: TypeAlias = Future[T] | asyncio.Future[T]


class Queue(Protocol):
    """A bounded queue: see `reid_core.core_process.places.Places`."""

    @property
    def jobs(self) -> int: ...

    def enter(self) -> None: ...

    def leave(self) -> None: ...


class Embeds(Queue, Protocol):
    """The models that compute: see `reid_core.core_process.embedding.Embedders`."""

    def find(self, digest: str) -> None: ...

    def embed(self, digest: str, pictures: NDArray[np.uint8]) -> Queued[Computed]: ...

    def distances(self, digest: str, pairs: NDArray[np.float64]) -> Queued[Computed]: ...


class Detects(Queue, Protocol):
    """The detectors that look: see `reid_core.core_process.detection.Detectors`."""

    def submit(self, digest: str, pictures: NDArray[np.uint8]) -> Queued[Detected]: ...


def application(embedders: Embeds, detectors: Detects, name: str = "core process") -> FastAPI:
    """The HTTP interface of models and detectors. `name`: what serves them, for messages."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(UrbanReidError)
    async def _error(_: Request, error: UrbanReidError) -> JSONResponse:
        status = 503 if isinstance(error, CoreUnavailable) else 404 if isinstance(error, ModelFileError) else 400
        return error_answer(status, error)

    @app.get("/jobs")
    async def _jobs() -> dict[str, int]:
        return {"embedding": embedders.jobs, "detection": detectors.jobs}

    @app.get("/models/{digest}")
    async def _model(digest: str) -> dict[str, str]:
        await asyncio.to_thread(embedders.find, digest)
        return {"digest": digest}

    @app.post("/models/{digest}/embed")
    async def _embed(digest: str, request: Request) -> Response:
        compute = embedders.embed
        return _tensor_answer(
            *await _answer(embedders, request, np.uint8, lambda pictures: compute(digest, pictures), name)
        )

    @app.post("/models/{digest}/distances")
    async def _distances(digest: str, request: Request) -> Response:
        compute = embedders.distances
        return _tensor_answer(
            *await _answer(embedders, request, np.float64, lambda pairs: compute(digest, pairs), name)
        )

    @app.get("/detectors/{digest}")
    async def _detector(digest: str, request: Request) -> dict[str, Any]:
        nothing = np.empty((0, 0, 0, 3), np.uint8)
        model, _, _ = await _answer(detectors, request, None, lambda _: detectors.submit(digest, nothing), name)
        return {"input": asdict(model.input), "sure": model.sure, "name": model.name}

    @app.post("/detectors/{digest}/find")
    async def _find(digest: str, request: Request) -> Response:
        _, found, seconds = await _answer(
            detectors, request, np.uint8, lambda pictures: detectors.submit(digest, pictures), name
        )
        counts = [len(people) for people in found]
        rows = np.column_stack([np.repeat(np.arange(len(found)), counts), np.concatenate(found)])
        return _tensor_answer(rows.astype(np.float64), seconds)

    return app


def error_answer(status: int, error: UrbanReidError) -> JSONResponse:
    """What a client raises again. The connection ends, for the body may not be read to its end."""
    return JSONResponse(wire.statement(error), status, {"connection": "close"})


async def _answer(
    queue: Queue, request: Request, dtype: type | None, submit: Callable[[NDArray[Any]], Queued[T]], name: str
) -> T:
    """What a job with the tensor of the request's body gives within its deadline; `dtype` None: without a body."""
    queue.enter()
    try:
        deadline_s = wire.parse_deadline(request.headers.get(wire.DEADLINE))
        future = submit(np.empty(0) if dtype is None else await _tensor(request, dtype))
    except BaseException:
        queue.leave()
        raise
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), deadline_s)
    except TimeoutError:
        raise CoreUnavailable(f"the {name} is busy: no result within {deadline_s:.0f} s; try again") from None


def _tensor_answer(tensor: NDArray[np.floating], seconds: float) -> Response:
    headers = {wire.SHAPE: wire.format_shape(tensor.shape), wire.SECONDS: repr(seconds)}
    return Response(tensor.tobytes(), media_type="application/octet-stream", headers=headers)


async def _tensor(request: Request, dtype: type) -> NDArray[Any]:
    """The array in a request's body. Raises CoreError."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for part in request.stream():
                body += part
                if len(body) > wire.MAX_BODY_BYTES:
                    raise CoreError(f"the body has more than {wire.MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise CoreUnavailable(f"no whole request came within {BODY_WITHIN_S:.0f} s; try again") from None
    shape = wire.parse_shape(request.headers.get(wire.SHAPE), np.dtype(dtype).itemsize, len(body))
    if not shape[0] or (dtype is np.float64 and shape[0] != 2):
        raise CoreError(f"a tensor of shape {shape}; pictures are (n, H, W, 3), pairs (2, n, D)")
    return np.frombuffer(body, dtype).reshape(shape)
