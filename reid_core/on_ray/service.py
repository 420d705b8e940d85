"""Answers callers on other hosts: HTTP, a token, and the models on Ray Serve. See `reid_core.serving.wire`."""

import hashlib
import hmac
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from reid_core.core_process.application import application, error_answer
from reid_core.on_ray.cluster import ray_serve
from reid_core.on_ray.deployments import Models, ServedDetectors, delete_left_over
from reid_core.serving.client import keep_alive
from reid_core.serving.token import made_token
from schemas.addresses import host_and_port, is_private
from schemas.errors import CoreError, UsageError
from schemas.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_LOOK_FOR_IDLE_EVERY_S = 1.0


def serve_core(settings: Settings, listen: str, on_ready: Callable[[str], None]) -> None:
    """Serves the home's models at `listen`, HOST:PORT, until SIGINT or SIGTERM. Calls `on_ready` with the address.

    Raises UsageError for an address that is neither loopback nor private or cannot be had; CoreError, HomeError as
    `ray_serve`.
    """
    token = made_token(settings)
    with _listening(listen) as listener, _ended_by_sigterm(), ray_serve(settings), _ended_by_sigterm():
        delete_left_over()
        models, detectors, ended = Models(settings), ServedDetectors(settings), threading.Event()

        def look_for_idle() -> None:
            while not ended.wait(_LOOK_FOR_IDLE_EVERY_S):
                models.leave_idle()
                detectors.leave_idle()

        threading.Thread(target=look_for_idle, name="idle", daemon=True).start()
        config = uvicorn.Config(
            guarded(application(models, detectors, "core"), token),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        listener.listen(2048)
        host, port = listener.getsockname()[:2]
        on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            ended.set()
            models.close()
            detectors.close()


def guarded(app: "ASGIApp", token: str) -> "ASGIApp":
    """The application for requests that carry the token; others are refused before their body is read."""
    expected = hashlib.sha256(f"Bearer {token}".encode()).digest()

    async def guard(scope: "Scope", receive: "Receive", send: "Send") -> None:
        said = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        if scope["type"] == "http" and hmac.compare_digest(hashlib.sha256(said).digest(), expected):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            wrong = CoreError(
                "the core refuses the token of this request; copy core-token from its data directory anew"
            )
            await error_answer(401, wrong)(scope, receive, send)

    return guard


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block, and with it what it started. Ray puts a handler of its own in the place of another."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _listening(listen: str) -> Iterator[socket.socket]:
    at = host_and_port(listen)
    if at is None:
        raise UsageError(f"--listen {listen[:60]}: is no address; write HOST:PORT, such as 10.0.0.5:8440")
    host, port = ("127.0.0.1" if at[0] == "localhost" else at[0]), at[1]
    if not is_private(host):
        raise UsageError(
            f"--listen {listen[:60]}: is neither a loopback nor a private address (127.0.0.1, 10.0.0.5, 192.168.1.5, "
            "fd00::5); for callers elsewhere a reverse proxy with TLS listens"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(listener)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UsageError(f"--listen {listen[:60]}: cannot be listened on: {error.strerror}") from None
        yield listener
