"""A server of files on loopback that misbehaves as asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Files by path. What it does with each of them is set by the test; `asked`: path and range of each request."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    #: How often a path's answer is cut in its middle.
    cuts: dict[str, int] = field(default_factory=dict)
    #: Status to answer with instead, a number of times.
    refused: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    #: Paths whose ranges are ignored, and whose length is not told.
    no_ranges: set[str] = field(default_factory=set)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def file_server() -> Iterator[FileServer]:
    found = FileServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(found)) as server:
        found.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def _handler(served: FileServer) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("range")
            served.asked.append((self.path, wanted))
            if served.refused.get(self.path):
                self.send_error(served.refused[self.path].pop(0))
            elif self.path in served.redirects:
                self.send_response(302)
                self.send_header("location", served.redirects[self.path])
                self.end_headers()
            elif self.path not in served.files:
                self.send_error(404)
            else:
                self._send(served.files[self.path], wanted)

        def _send(self, content: bytes, wanted: str | None) -> None:
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if self.path in served.no_ranges:
                start = 0
            if start >= len(content) > 0:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if self.path not in served.no_ranges:
                self.send_header("content-length", str(len(content) - start))
            self.end_headers()
            if served.cuts.get(self.path, 0):
                served.cuts[self.path] -= 1
                content = content[: start + (len(content) - start) // 2]
            with suppress(ConnectionError):  # the client went away
                self.wfile.write(content[start:])

        def log_message(self, format: str, *arguments: object) -> None: ...

    return Handler
