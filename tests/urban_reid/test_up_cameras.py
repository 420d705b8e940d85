"""`urban-reid up` with a camera whose stream dies and comes back: told by the webhook, the metrics and the list."""

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cameras.live_client import read_live
from pipeline.cameras.secrets import FILE, write_secret
from schemas.errors import InputError
from schemas.settings import Settings
from tests.helpers import waiting
from tests.helpers.command_line import environment_of, program
from tests.helpers.receiver import SECRET, receiving
from tests.helpers.rtsp_server import PASSWORD, USER, serving
from tests.helpers.video_files import walk, write_video

C1 = "d1/s1/b1/c1"
PATIENCE_S = 240.0

pytestmark = [pytest.mark.system, pytest.mark.server]


def wait_until(done: Callable[[], Any]) -> Any:
    return waiting.wait_until(done, PATIENCE_S)


def test_a_stream_that_dies_is_told_everywhere_and_so_is_its_return(home: Path, tmp_path: Path) -> None:
    settings = Settings(home=home)
    video = write_video(tmp_path / "walk.avi", walk(50))
    write_secret(home / FILE, "gate", USER, PASSWORD)
    with serving({"gate": [str(video)]}) as server, receiving() as receiver:
        port = receiver.free_port()
        environment = environment_of(settings) | {
            "URBAN_REID_WEBHOOK_URL": receiver.url,
            "URBAN_REID_WEBHOOK_SECRET": SECRET,
            "URBAN_REID_METRICS": str(port),
        }

        def run(*words: str) -> dict[str, Any]:
            done = subprocess.run(program(*words, "--json"), env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        def state() -> str:
            return str(run("cameras", "list")["cameras"][0]["state"])

        def blind() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                page: str = answer.read().decode()
            return next(line.split()[1] for line in page.splitlines() if line.startswith("urban_reid_cameras_blind "))

        def picture() -> bytes | None:
            try:
                return read_live(settings, C1)
            except InputError:  # it has seen nothing yet
                return None

        assert run("cameras", "add", C1, server.address("gate"), "--secret", "gate")["outcome"] == "added"
        assert run("cameras", "test", C1)["codec"] == "h264"
        up = subprocess.Popen(
            program("up"), env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            wait_until(lambda: state() == "up")
            assert blind() == "0.0" and receiver.taken == []
            assert wait_until(picture).startswith(b"\xff\xd8"), "the cameras' process says what it sees"
            server.kill()
            wait_until(lambda: receiver.taken)
            assert (receiver.taken[0]["event"], receiver.taken[0]["camera"]) == ("camera.down", C1)
            assert blind() == "1.0" and state() == "down"
            server.start()
            wait_until(lambda: len(receiver.taken) > 1)
            assert receiver.taken[1]["event"] == "camera.up"
            assert receiver.taken[1]["down_at"] == receiver.taken[0]["at"] < receiver.taken[1]["at"]
            wait_until(lambda: state() == "up" and blind() == "0.0")
        finally:
            up.terminate()
            said = up.communicate(timeout=PATIENCE_S)[1]
        assert picture() is None and not settings.cameras_socket.exists()
        logs = said + "".join(log.read_text() for log in [*home.glob("*.log"), *(home / "prefect").glob("*.log")])
        assert PASSWORD not in logs and SECRET not in logs and receiver.url not in logs
