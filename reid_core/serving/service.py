"""The one core process of `urban-reid up`: it owns the device, loads each model once, and answers on a Unix socket.

Notable: a single worker thread does all loading and computing, so jobs queue in order of arrival; at most `QUEUE` of
them wait, each with a deadline. The socket is open to its owner only. See `wire.py` for what is said on it.

    python -P -m reid_core.serving.service
"""

import asyncio
import fcntl
import importlib
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from reid_core.files import model_digest, read_card
from reid_core.serving import wire
from reid_core.serving.core import ReIDCore
from schemas.errors import CoreError, CoreUnavailable, HomeError, ModelFileError, UrbanReidError
from schemas.settings import Settings, settings

#: Jobs that may wait or run; one more is refused.
QUEUE = 32

Job = Callable[[ReIDCore], NDArray[np.floating]]


class Device:
    """The models of a home, loaded when first used, and the one thread that computes with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cores: dict[str, ReIDCore] = {}
        self.loads: Counter[str] = Counter()
        self.jobs = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="core")
        # torch takes seconds to import: begun now, and the socket answers meanwhile.
        self._worker.submit(importlib.import_module, "reid_core.serving.local")

    def directory(self, digest: str) -> Path:
        """The folder of a model in this home. Raises ModelFileError."""
        folders = self.settings.models_dir.glob("[!.]*/") if self.settings.models_dir.is_dir() else ()
        for folder in sorted(folders):
            try:
                if model_digest(read_card(folder)).hex() == digest:
                    return folder
            except ModelFileError:
                continue  # a damaged model hides no sound one; whoever asks for it is told that it is not here
        raise ModelFileError(f"no model {digest[:64]} in {self.settings.models_dir}")

    async def compute(self, digest: str, job: Job, deadline_s: float) -> tuple[NDArray[np.floating], float]:
        """The job's result, and the seconds it computed. Raises CoreUnavailable past the deadline."""
        result = asyncio.get_running_loop().run_in_executor(self._worker, self._compute, digest, job)
        try:
            return await asyncio.wait_for(result, deadline_s)
        except TimeoutError:
            raise CoreUnavailable(f"the core process is busy: no result within {deadline_s:.0f} s; try again") from None

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def _compute(self, digest: str, job: Job) -> tuple[NDArray[np.floating], float]:
        from reid_core.serving.local import LocalCore

        core = self.cores.get(digest)
        if core is None:
            core = self.cores[digest] = LocalCore.open(self.settings, self.directory(digest))
            self.loads[digest] += 1
        before = core.seconds
        return job(core), core.seconds - before


def application(device: Device) -> FastAPI:
    """The HTTP side of a device."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(UrbanReidError)
    async def _refuse(_: Request, error: UrbanReidError) -> JSONResponse:
        status = 503 if isinstance(error, CoreUnavailable) else 404 if isinstance(error, ModelFileError) else 400
        name = type(error).__name__
        kind = name if name in wire.ERRORS else CoreError.__name__
        return JSONResponse({"error": kind, "message": str(error)}, status, {"connection": "close"})

    @app.get("/health")
    async def _health() -> dict[str, object]:
        return {"loads": device.loads, "jobs": device.jobs}

    @app.get("/models/{digest}")
    async def _model(digest: str) -> dict[str, str]:
        if digest not in device.cores:
            await asyncio.to_thread(device.directory, digest)
        return {"digest": digest}

    @app.post("/models/{digest}/embed")
    async def _embed(digest: str, request: Request) -> Response:
        return await answer(digest, request, np.uint8, lambda core, pictures: core.embed(pictures))

    @app.post("/models/{digest}/distances")
    async def _distances(digest: str, request: Request) -> Response:
        return await answer(digest, request, np.float64, lambda core, pairs: core.distances(pairs[0], pairs[1]))

    async def answer(
        digest: str, request: Request, dtype: type, job: Callable[[ReIDCore, NDArray[Any]], NDArray[np.floating]]
    ) -> Response:
        if device.jobs >= QUEUE:
            raise CoreUnavailable(f"the core process is busy: {device.jobs} jobs wait already; try again")
        device.jobs += 1
        try:
            tensor = await _tensor(request, dtype)
            deadline_s = min(float(request.headers.get(wire.DEADLINE, wire.DEADLINE_S)), wire.DEADLINE_S)
            result, seconds = await device.compute(digest, lambda core: job(core, tensor), deadline_s)
        finally:
            device.jobs -= 1
        headers = {wire.SHAPE: wire.format_shape(result.shape), wire.SECONDS: repr(seconds)}
        return Response(result.tobytes(), media_type="application/octet-stream", headers=headers)

    return app


async def _tensor(request: Request, dtype: type) -> NDArray[Any]:
    """The array in a request's body. Raises CoreError."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > wire.MAX_BODY_BYTES:
            raise CoreError(f"a body of more than {wire.MAX_BODY_BYTES} bytes")
    shape = wire.parse_shape(request.headers.get(wire.SHAPE), np.dtype(dtype).itemsize, len(body))
    if not shape[0] or (dtype is np.float64 and shape[0] != 2):
        raise CoreError(f"a tensor of shape {shape}; pictures are (n, H, W, 3), pairs (2, n, D)")
    return np.frombuffer(body, dtype).reshape(shape)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The home's core socket, for its owner only; a dead process's is replaced. Raises CoreError and HomeError."""
    path = wire.socket_path(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"{path.parent}: cannot be written ({error.strerror})") from None
    try:
        # The kernel gives the lock back however its holder ends, so what is left of a socket then is nobody's.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise CoreError(f"{path}: a core process serves this home already") from None
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            yield listener
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def run(settings: Settings) -> None:
    """Serve this home's models until SIGINT or SIGTERM. Raises CoreError where another process does already."""
    with _listening(settings) as listener:
        device = Device(settings)
        config = uvicorn.Config(
            application(device), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            device.close()


def main() -> None:
    # uvicorn ends its work on a signal and then raises it again: what follows must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        run(settings())
    except KeyboardInterrupt:
        return
    except UrbanReidError as error:
        raise SystemExit(f"urban-reid core: {error}") from None


if __name__ == "__main__":
    main()
