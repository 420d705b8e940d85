"""Serves the console on loopback, and says where."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.disk import write_whole
from schemas.errors import InputError, UsageError
from schemas.settings import Settings
from urban_reid.console.visitors import new_link

if TYPE_CHECKING:
    import uvicorn

#: The console's port unless another one is chosen.
PORT = 8420

#: A connection is closed after so long without a request, seconds: not while somebody reads a page, whose next request
#: would meet the end of it.
_IDLE_S = 75


@dataclass(frozen=True)
class Address:
    """Where the console is served. `link`: opens it signed in, once; None in a home where one signs in."""

    url: str
    link: str | None


def serve(settings: Settings, port: int, on_listening: Callable[[Address], None], *, is_recorded: bool = False) -> None:
    """Serves the console until SIGINT or SIGTERM. Calls `on_listening` once the port is taken.

    is_recorded: other programs of this user find it by `served`. Raises InputError if the port cannot be had.
    """
    import uvicorn

    from pipeline.store import Store
    from urban_reid.console.app import make_app

    with Store.open(settings, "urban-reid console") as store, listen(port) as sockets:
        made = make_app(store, ["127.0.0.1", "localhost", *settings.console_hosts])
        visitors = made.state.console.visitors
        made.state.console.watch.start()
        made.state.console.uploads.warm()
        url = f"http://127.0.0.1:{sockets.getsockname()[1]}"
        if is_recorded:
            record = json.dumps({"url": url, "key": visitors.key.hex()})
            write_whole(record_file(settings), record, mode=0o600)
        on_listening(Address(url, new_link(url, visitors.key) if visitors.is_open_home() else None))
        uvicorn.Server(server_config(made, settings)).run(sockets=[sockets])
        made.state.console.watch.stop()


def server_config(app: Any, settings: Settings) -> "uvicorn.Config":
    """How the console is served. What a reverse proxy says of who asks, and over what, counts where one is named."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=_IDLE_S,
        proxy_headers=bool(settings.console_hosts),
        forwarded_allow_ips="127.0.0.1",
    )


def record_file(settings: Settings) -> Path:
    """Where the console of `up` is found; only this user can read it."""
    return settings.home / "console.json"


def served(settings: Settings) -> Address | None:
    """The console that `up` serves on this data directory, with a new link if the home is open; None if there is none.

    Raises HomeError, StoreError.
    """
    from pipeline.governance.doors import is_live
    from pipeline.store import Store

    try:
        record = json.loads(record_file(settings).read_text())
        url, key = record["url"], bytes.fromhex(record["key"])
    except (OSError, ValueError, KeyError):
        return None
    with Store.open(settings, "urban-reid console") as store:
        return Address(url, None if is_live(store) else new_link(url, key))


def choose_port(asked: int | None) -> int:
    """A port that is free now: that which is asked for, else the usual one or any. Raises UsageError."""
    for port in (PORT, 0) if asked is None else (asked,):
        try:
            with listen(port) as sockets:
                return int(sockets.getsockname()[1])
        except InputError as error:
            if asked is not None:
                raise UsageError(str(error).replace("--port", "URBAN_REID_CONSOLE_PORT", 1).split(";")[0]) from None
    raise UsageError("no port is free for the console")


@contextmanager
def listen(port: int) -> Iterator[socket.socket]:
    """A socket that listens on loopback; port 0: a free one. Raises InputError if the port is taken."""
    # asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP: else the second part of an answer waits
    # for the receipt of the first, 40 ms.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; --port 0 takes a free one") from None
        listening.listen()
        yield listening
