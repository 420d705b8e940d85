"""The process of a data directory's Prefect server: `python -P -m flows.server_process SOCKET_FD`, in HOME/prefect.

`flows.server` starts it, with a listening socket and with the lock server.lock, which it holds until its end.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.disk import keep_private, open_lock, try_lock, unlock, write_whole

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: The last run's events are still on their way into Prefect's tables when its command ends; and the next command may
#: come soon.
POLL_S, LINGER_POLLS = 0.5, 20
#: A page of another site whose name was made to lead to this machine (DNS rebinding) names that site as the host.
_ADDRESS = "127.0.0.1"
_HOSTS = [_ADDRESS, "localhost", "[::1]"]


class Record(NamedTuple):
    """What server.json says of the server that runs."""

    url: str
    pid: int
    ready: bool  # whether it has begun to answer


def read_record(path: Path) -> Record | None:
    """What server.json holds; None where it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
        return Record(str(found["url"]), int(found["pid"]), bool(found.get("ready")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _keep_record(path: Path, record: Record) -> None:
    """Writes server.json, by which others find this server, unless it is there."""
    if read_record(path) != record:
        write_whole(path, json.dumps(record._asdict()), mode=0o600)


def make_app() -> "ASGIApp":
    """Prefect's API and pages, for requests to a host of this machine."""
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(_pages_at_their_address(create_app()), allowed_hosts=_HOSTS, www_redirect=False)


def _pages_at_their_address(app: "ASGIApp") -> "ASGIApp":
    """Leads a browser that opened a page as http://localhost to 127.0.0.1, the only origin whose calls are answered."""
    from starlette.requests import Request
    from starlette.responses import RedirectResponse

    async def lead(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/api"):
            url = Request(scope).url
            if url.hostname != _ADDRESS:
                await RedirectResponse(str(url.replace(hostname=_ADDRESS)))(scope, receive, send)
                return
        await app(scope, receive, send)

    return lead


def main() -> None:
    """Serves on the socket that it was given until nobody holds the server."""
    keep_private()
    path, record = Path("server.json"), Record(os.environ["PREFECT_API_URL"], os.getpid(), ready=False)
    _keep_record(path, record)

    import uvicorn

    listening = socket.socket(fileno=int(sys.argv[1]))
    server = uvicorn.Server(uvicorn.Config(make_app, factory=True, log_level="error", lifespan="on"))

    def watch() -> None:
        with open_lock(Path("holders.lock")) as holders:
            unheld_polls = missing_polls = 0
            while unheld_polls < LINGER_POLLS:
                time.sleep(POLL_S)
                missing_polls = 0 if path.exists() else missing_polls + 1
                # Not at the first look without it: whoever is just removing the folder would find it not empty.
                if missing_polls != 1:
                    with contextlib.suppress(OSError):  # such as a full disk; tried again in a moment
                        _keep_record(path, record._replace(ready=server.started))
                unheld_polls = unheld_polls + 1 if try_lock(holders) else 0
                if unheld_polls < LINGER_POLLS:
                    unlock(holders)
            server.should_exit = True  # not sooner than the migrations are through
            threading.Event().wait()  # keeps the lock to the end, so that a newcomer starts a server of its own

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
