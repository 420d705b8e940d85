"""GStreamer's RTSP server, see gst_rtsp_server.py. Tests that use it skip where it is missing."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
USER, PASSWORD = "watchman", "s3cret/?@:word"
_SCRIPT = Path(__file__).with_name("gst_rtsp_server.py")
_NEEDED = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
    "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    "assert all(map(Gst.ElementFactory.find, ('avidemux', 'jpegdec', 'x264enc', 'h264parse', 'rtph264pay')))"
)


@cache
def is_installed() -> bool:
    try:
        return subprocess.run([PYTHON, "-c", _NEEDED], capture_output=True).returncode == 0
    except OSError:
        return False


class RtspServer:
    """Serves videos, MJPEG in AVI, by mount, the first at first: `{"gate": ["walk.avi", "walk.avi:640x360"]}`.

    at: its address, on the host that the thread has entered.
    """

    def __init__(
        self, videos: dict[str, list[str]], per_second: int = 10, clients: int = 0, at: str = "127.0.0.1"
    ) -> None:
        if not is_installed():
            pytest.skip("GStreamer's RTSP server is not installed (.ci/run says how)")
        self._videos, self._numbers, self._at = videos, [str(per_second), str(clients)], at
        with socket.create_server((at, 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def address(self, mount: str) -> str:
        return f"rtsp://{self._at}:{self.port}/{mount}"

    def start(self) -> None:
        named = [f"{mount}={video}" for mount, videos in self._videos.items() for video in videos]
        command = [PYTHON, str(_SCRIPT), self._at, str(self.port), USER, PASSWORD, *self._numbers, *named]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def order(self, line: str) -> None:
        """See gst_rtsp_server.py, such as "gate stall"."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(
    videos: dict[str, list[str]], per_second: int = 10, clients: int = 0, at: str = "127.0.0.1"
) -> Iterator[RtspServer]:
    """`clients`: how many are served at most at once; 0: any number."""
    server = RtspServer(videos, per_second, clients, at)
    try:
        yield server
    finally:
        server.kill()
