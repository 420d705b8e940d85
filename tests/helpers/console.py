"""The console as somebody with a browser uses it."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi.testclient import TestClient

from pipeline.store import Store
from urban_reid.console.app import make_app
from urban_reid.console.listening import listen

#: The console as somebody sees it: by name, under an authorization or none.
As = Callable[..., TestClient]


@contextmanager
def on_loopback(store: Store) -> Iterator[tuple[str, bytes]]:
    """The console on a free port of loopback: its address, and the key of the links that open it."""
    with listen(0) as socket:
        app = make_app(store, ["127.0.0.1"])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}", app.state.console.visitors.key
        finally:
            server.should_exit = True
            thread.join()


def send(client: TestClient, page: str, path: str, **fields: object) -> Any:
    """Sends a form as the page at `page` does."""
    found = re.search(r'name="form_key" value="(\w+)"', client.get(page).text)
    assert found is not None
    return client.post(path, data={"form_key": found[1], **fields})


def the(pattern: str, shown: str) -> str:
    found = re.search(pattern, shown)
    assert found is not None, shown
    return found[1]
