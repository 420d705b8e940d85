"""A receiver of the webhook's messages on loopback, which checks signatures as the guide says."""

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "a secret of the test"


class Receiver(ThreadingHTTPServer):
    """Takes messages with a right signature; `status` is what it answers to those, 400 to the ids in `refused`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.wait_s = 200, 0.0
        self.refused: set[str] = set()
        self.taken: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"

    def free_port(self) -> int:
        """A port that nobody listens on."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            return int(free.getsockname()[1])


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        timestamp, signed = self.headers["X-Urban-Reid-Timestamp"], self.headers["X-Urban-Reid-Signature"]
        expected = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
        fresh = abs(time.time() - int(timestamp)) < 300
        right = fresh and hmac.compare_digest(signed, f"v1={expected}")
        time.sleep(self.server.wait_s)
        status = 400 if json.loads(body)["id"] in self.server.refused else self.server.status
        self.send_response(status if right else 401)
        self.end_headers()
        if right and status == 200:
            self.server.taken.append(json.loads(body))
            self.server.arrived.set()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
