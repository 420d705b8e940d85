"""`urban-reid up` on one data directory. One long test, because each start takes seconds."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.server import PrefectServer
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import register_model, use_model
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.settings import Settings
from tests.helpers import waiting
from tests.helpers.command_line import environment_of, error_of, program
from tests.helpers.prefect_api import ask as ask_prefect
from tests.helpers.prefect_api import process_of as prefect_of
from tests.helpers.prefect_api import secret_of

PATIENCE_S = 240.0


def wait_until(done: Callable[[], Any]) -> Any:
    return waiting.wait_until(done, PATIENCE_S)


def processes(home: Path) -> dict[int, str]:
    """Command lines of the living processes that belong to a data directory, by id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                mine = b"URBAN_REID_HOME=" + os.fsencode(home) + b"\0" in (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mine and command:
                found[int(folder.name)] = command
    return found


def process_of(home: Path, module: str) -> int | None:
    return next((number for number, command in processes(home).items() if f"-m {module}" in command), None)


def test_command_lines_of_other_programs_need_not_be_text(home: Path) -> None:
    command = [os.fsencode(sys.executable), b"-c", b"import time; time.sleep(60)", b"\xff"]
    with subprocess.Popen(command, env={"URBAN_REID_HOME": str(home)}) as other:
        try:
            assert wait_until(lambda: processes(home).get(other.pid, "")).endswith("sleep(60) \ufffd ")
        finally:
            other.kill()


@pytest.fixture
def here(home: Path, city_files: Path, model_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A data directory with a city, a model and crops; and a working directory with packages that are named as ours."""
    for name in ("flows", "pipeline", "schemas"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    settings = Settings(home=home)
    keep_private()  # as every command does
    with Store.open(settings, "pytest") as store:
        store_city(store, read_city_file(city_files / "city.yaml"))
        register_model(store, settings, model_folder, "test")
        use_model(store, "test")
        part = city_files / "part-up.jsonl"
        part.write_text("\n".join((city_files / "manifest.jsonl").read_text().splitlines()[:100]) + "\n")
        ingest_manifest(store, CropStore(settings), part, synthetic=True)
        part.unlink()
    yield tmp_path
    shutil.rmtree(home / "crops", ignore_errors=True)


def test_up(home: Path, here: Path) -> None:
    settings = Settings(home=home)
    environment = environment_of(settings)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(program(*arguments), env=environment, cwd=here, capture_output=True, text=True)

    assert "nothing is up" in error_of(run("resolve", "--unit", "d1", "--no-wait"), 1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(here / "manager.sock"))
    told_manager: list[tuple[float, bytes]] = []

    def listen() -> None:
        while not told_manager or told_manager[-1][1] != b"STOPPING=1":
            message = manager.recv(1000)
            told_manager.append((time.monotonic(), message))

    # Reading before `up` writes: the socket holds ten messages, and what finds no room is lost.
    telling = threading.Thread(target=listen, daemon=True)
    telling.start()
    up = subprocess.Popen(
        program("up", "--json"),
        env=environment
        | {
            "NOTIFY_SOCKET": str(here / "manager.sock"),
            "URBAN_REID_METRICS": metrics,
            "URBAN_REID_LOG": "json",
        },
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None and up.stderr is not None
        told = json.loads(up.stdout.readline())
        url = told["url"]
        assert url.startswith("http://127.0.0.1:") and Path(told["secret_file"]).read_text().startswith("urban-reid:")
        assert "runs already" in error_of(run("up"), 1)
        pages = told["console"]
        with httpx.Client(timeout=60, trust_env=False, follow_redirects=True) as browser:
            assert "Sign in" in browser.get(pages["url"]).text
            assert ">Overview<" in browser.get(pages["link"]).text
            assert "used" in browser.get(pages["link"]).text  # once
        another = json.loads(run("console", "--json").stdout)  # not a second one: a new link to the one that is served
        assert another["url"] == pages["url"] and another["link"] != pages["link"]
        assert (home / "console.json").stat().st_mode & 0o077 == 0

        def ask(path: str, body: dict[str, Any]) -> Any:
            return ask_prefect(f"{url}/api", path, body, secret_of(home))

        deployments = {found["entrypoint"]: found for found in ask("/deployments/filter", {})}
        assert set(deployments) == {
            *(f"flows.resolve.{level}" for level in ("camera", "building", "street", "district")),
            "flows.search.search",
            "flows.training.training",
        }
        assert not any(found["schedules"] for found in deployments.values())
        assert deployments["flows.search.search"]["parameter_openapi_schema"]["definitions"]["RequestParameters"]
        # What was taken in before is resolved by itself, in one run.
        wait_until(lambda: json.loads(run("status", "--json").stdout)["levels"]["district"])
        (of_windows,) = ask("/flow_runs/filter", {"flow_runs": {"tags": {"all_": ["windows"]}}})
        assert of_windows["name"] == "d1"

        with urllib.request.urlopen(f"http://{metrics}/metrics") as answer:
            page = answer.read().decode()
        assert "urban_reid_core_up 1.0" in page and "urban_reid_database_up 1.0" in page
        assert 'urban_reid_core_jobs{queue="embedding"}' in page

        core = process_of(home, "reid_core.core_process.service")
        assert core is not None
        os.kill(core, signal.SIGKILL)  # it is started again, and a run that meets the gap tries again
        os.kill(prefect_of(home), signal.SIGKILL)  # so is the Prefect server, at its address: callers wait
        os.kill(int((home / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        handed = run("resolve", "--unit", "d1", "--no-wait", "--json")
        assert handed.returncode == 0, handed.stderr
        flow_run = json.loads(handed.stdout)["flow_run"]

        def ended() -> str | None:
            state = ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})[0]["state"]
            return state["type"] if state["type"] in ("COMPLETED", "FAILED", "CRASHED") else None

        assert wait_until(ended) == "COMPLETED"
        assert process_of(home, "reid_core.core_process.service") not in (None, core)
        again = json.loads(run("resolve", "--unit", "d1", "--json").stdout)
        assert again["written"] == 0
        status = json.loads(run("status", "--json").stdout)
        assert status["digest"] == again["digest"] and status["levels"]["district"] > 0

        runner = process_of(home, "flows.deployments")
        assert runner is not None
        up.send_signal(signal.SIGTERM)
        assert up.wait(PATIENCE_S) == 0
        telling.join(PATIENCE_S)
        manager.close()
        ready = [number for number, (_, message) in enumerate(told_manager) if message.startswith(b"READY=1\n")]
        assert len(ready) == 1 and told_manager[-1][1] == b"STOPPING=1"
        alive = [at for at, message in told_manager if message == b"WATCHDOG=1"]
        # The unit of the guide restarts `up` after 300 s without a word; here three of its processes were killed.
        assert len(alive) > 20 and max(b - a for a, b in pairwise(alive)) < 60
        lines = [json.loads(line) for line in up.stderr.read().splitlines()]
        assert {line["process"] for line in lines} == {"up"}
        said = "\n".join(line["message"] for line in lines)
        logs = [*home.glob("*.log"), *(home / "prefect").glob("*.log")]
        for log in logs:
            for line in log.read_text().splitlines():
                assert {"time", "level", "process", "message"} <= json.loads(line).keys(), (log, line)
        for part in ("the core process ended", "the Prefect server ended and is started again", "the database ended"):
            assert part in said, said
        left = {number: command for number, command in processes(home).items() if "urban_reid.cli" not in command}
        assert not any("-m flows" in command or "-m reid_core" in command for command in left.values()), left
    finally:
        up.kill()
        up.communicate()


@pytest.mark.system
def test_up_with_a_prefect_server_that_the_user_supplies(settings: Settings, home: Path, tmp_path: Path) -> None:
    with PrefectServer(Settings(home=home)) as theirs:
        environment = environment_of(settings) | {
            "URBAN_REID_PREFECT_URL": theirs.wait(),
            "PREFECT_API_AUTH_STRING": secret_of(home),
        }
        up = subprocess.Popen(
            program("up", "--json"),
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert up.stdout is not None
            said = up.stdout.readline()
            assert said, up.communicate()[1]
            assert json.loads(said)["url"] == theirs.ui_url
            up.send_signal(signal.SIGTERM)
            assert up.wait(PATIENCE_S) == 0
            assert theirs.wait() and not (settings.home / "prefect" / "server.json").exists()
        finally:
            up.kill()
            up.communicate()
            theirs.stop()
