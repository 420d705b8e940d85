"""The core process of `urban-reid up`: it owns the device, loads each model once, and answers on a Unix socket.

A single worker thread loads and computes, so jobs run in order of arrival. At most `QUEUE` requests are in progress,
each with a deadline. Only the owner may open the socket. See `wire.py` for the protocol.

    python -P -m reid_core.serving.service
"""

import asyncio
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
from schemas.disk import keep_private, open_lock, try_lock
from schemas.errors import CoreError, CoreUnavailable, HomeError, ModelFileError, UrbanReidError
from schemas.settings import Settings, settings

#: Requests that may be read, wait or compute at a time; one more is refused.
QUEUE = 32

Job = Callable[[ReIDCore], NDArray[np.floating]]
Result = tuple[NDArray[np.floating], float]
#: Name, inode, size and times of each file of a folder: another one when anything in it was written.
Identity = tuple[tuple[str | int, ...], ...]


class ModelFolders:
    """The model folders of a home by digest. A folder is read and hashed again only when its files have changed."""

    def __init__(self, settings: Settings) -> None:
        self._models_dir = settings.models_dir
        self._read: dict[Path, tuple[Identity, str | None]] = {}  # None: a damaged model
        self._lock = threading.Lock()

    def find(self, digest: str) -> Path:
        """The folder of a model. Raises ModelFileError if this home has no undamaged model with this digest."""
        with self._lock:
            folders = sorted(self._models_dir.glob("[!.]*/")) if self._models_dir.is_dir() else []
            self._read = {folder: self._read[folder] for folder in folders if folder in self._read}
            for folder in folders:
                if self._digest(folder) == digest:
                    return folder
        raise ModelFileError(f"no model {digest[:64]} in {self._models_dir}")

    def _digest(self, folder: Path) -> str | None:
        identity = _identity(folder)
        known = self._read.get(folder)
        if known is None or known[0] != identity:
            try:
                digest = model_digest(read_card(folder)).hex()
            except ModelFileError:
                digest = None  # a damaged model must not hide the others; whoever asks for it learns that it is missing
            known = self._read[folder] = identity, digest
        return known[1]


def _identity(folder: Path) -> Identity:
    found: list[tuple[str | int, ...]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stat = entry.stat(follow_symlinks=False)
                found.append((entry.name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    except OSError:
        return ()  # removed meanwhile
    return tuple(sorted(found))


class Device:
    """The models of a home, loaded on first use, and the one thread that computes with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folders = ModelFolders(settings)
        self._cores: dict[str, ReIDCore] = {}
        self._jobs = 0
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="core")
        # torch takes seconds to import: that begins now, and the socket answers meanwhile.
        self._worker.submit(importlib.import_module, "reid_core.serving.local")

    @property
    def jobs(self) -> int:
        """Requests that are read, wait or compute, also those whose client has given up."""
        return self._jobs

    def enter(self) -> None:
        """Takes a place in the queue, which `leave` gives back. Raises CoreUnavailable if there is none."""
        with self._lock:
            if self._jobs >= QUEUE:
                raise CoreUnavailable(f"the core process is busy with {self._jobs} requests; try again")
            self._jobs += 1

    def leave(self) -> None:
        with self._lock:
            self._jobs -= 1

    def submit(self, digest: str, job: Job) -> Future[Result]:
        """Queues a job, whose result is an array and the seconds that it computed.

        The caller's place in the queue is given back when the job ends, or is canceled before it begins.
        """
        future = self._worker.submit(self._compute, digest, job)
        future.add_done_callback(lambda _: self.leave())
        return future

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def _compute(self, digest: str, job: Job) -> Result:
        from reid_core.serving.local import LocalCore

        try:
            folder = self.folders.find(digest)
        except ModelFileError:
            self._cores.pop(digest, None)  # removed, or changed, since it was loaded
            raise
        core = self._cores.get(digest)
        if core is None:
            core = self._cores[digest] = LocalCore.open(self.settings, folder)
        before = core.seconds
        return job(core), core.seconds - before


def application(device: Device) -> FastAPI:
    """The HTTP interface of a device."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(UrbanReidError)
    async def _error(_: Request, error: UrbanReidError) -> JSONResponse:
        status = 503 if isinstance(error, CoreUnavailable) else 404 if isinstance(error, ModelFileError) else 400
        name = type(error).__name__
        kind = name if name in wire.ERRORS else CoreError.__name__
        return JSONResponse({"error": kind, "message": str(error)}, status, {"connection": "close"})

    @app.get("/models/{digest}")
    async def _model(digest: str) -> dict[str, str]:
        await asyncio.to_thread(device.folders.find, digest)
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
        device.enter()
        try:
            deadline_s = wire.parse_deadline(request.headers.get(wire.DEADLINE))
            tensor = await _tensor(request, dtype)
            future = device.submit(digest, lambda core: job(core, tensor))
        except BaseException:
            device.leave()
            raise
        try:
            result, seconds = await asyncio.wait_for(asyncio.wrap_future(future), deadline_s)
        except TimeoutError:
            raise CoreUnavailable(f"the core process is busy: no result within {deadline_s:.0f} s; try again") from None
        headers = {wire.SHAPE: wire.format_shape(result.shape), wire.SECONDS: repr(seconds)}
        return Response(result.tobytes(), media_type="application/octet-stream", headers=headers)

    return app


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


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The home's core socket, open to its owner only. Raises CoreError if a process serves it already, HomeError."""
    path = wire.socket_path(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_lock(path.with_suffix(".lock"))
    except OSError as error:
        raise HomeError(f"{path.parent}: cannot be written ({error.strerror})") from None
    with lock:
        if not try_lock(lock):
            raise CoreError(f"{path}: a core process serves this home already")
        # Who holds the lock serves the home, so a socket that is still there is a dead process's.
        path.unlink(missing_ok=True)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                before = os.umask(0o177)
                try:
                    listener.bind(str(path))
                finally:
                    os.umask(before)
                yield listener
        finally:
            path.unlink(missing_ok=True)


def run(settings: Settings) -> None:
    """Serves this home's models until SIGINT or SIGTERM. Raises CoreError if another process does already."""
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
    keep_private()
    # uvicorn stops on a signal and then raises it again: the cleanup after it must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        run(settings())
    except KeyboardInterrupt:
        return
    except UrbanReidError as error:
        raise SystemExit(f"urban-reid core: {error}") from None


if __name__ == "__main__":
    main()
