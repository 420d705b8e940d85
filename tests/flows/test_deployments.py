"""The runner of `urban-reid up`, with a real server: it starts our flows and nothing that rows of the API name."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.environment import environment
from flows.server import PrefectServer
from tests.helpers.command_line import environment_of
from tests.helpers.prefect_api import secret_of, send
from tests.helpers.town import Town

pytestmark = pytest.mark.system

PATIENCE_S = 180.0
#: A flow of somebody else's, which leaves a mark when it runs, and when it is only loaded.
EVIL = """
from pathlib import Path
from prefect import flow

Path(__file__).with_name("loaded").touch()

@flow
def evil():
    Path(__file__).with_name("ran").touch()
"""


class Api:
    """Prefect's API, as somebody uses it who has the secret."""

    def __init__(self, home: Path, url: str) -> None:
        self._url, self._secret = url, secret_of(home)

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        answer = send(method, f"{self._url}{path}", self._secret, body)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else None

    def deployment(self, flow: str) -> str:
        found: str = self("GET", f"/deployments/name/{flow}/urban-reid")["id"]
        return found

    def start(self, deployment: str, parameters: object, **more: object) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, **more}
        run: str = self("POST", f"/deployments/{deployment}/create_flow_run", body)["id"]
        return run

    def state(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self("GET", f"/flow_runs/{run}")["state"]
        return found

    def end_of(self, run: str) -> dict[str, Any]:
        """The run's state, once it is final."""

        def ended() -> dict[str, Any] | None:
            state = self.state(run)
            return None if state["type"] in ("SCHEDULED", "PENDING", "RUNNING") else state

        found: dict[str, Any] = wait_until(ended)
        return found


def wait_until(done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := done()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


@pytest.fixture
def api(town: Town, tmp_path: Path) -> Iterator[Api]:
    """The API of a server whose runner serves the town."""
    settings = town.store.settings
    with PrefectServer(settings) as server, (tmp_path / "runner.log").open("wb") as log:
        server.wait()
        variables = environment(settings, server.url) | {
            name: value for name, value in environment_of(settings).items() if name.startswith("URBAN_REID_")
        }
        command = [sys.executable, "-P", "-m", "flows.deployments"]
        runner = subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=log, stderr=log)
        try:
            wait_until((settings.home / "prefect" / "serving").exists)
            yield Api(settings.home, server.url)
            runner.terminate()
            assert runner.wait(60) == 0, (tmp_path / "runner.log").read_text()
            assert "never awaited" not in (tmp_path / "runner.log").read_text()
        finally:
            runner.kill()
            runner.wait()
            server.stop()


def test_nothing_that_a_row_names_is_run(town: Town, lines: list[str], api: Api, tmp_path: Path) -> None:
    town.take_in(lines[:40])
    town.resolve()
    (tmp_path / "evil.py").write_text(EVIL)
    ids = {flow: api.deployment(flow) for flow in ("camera", "building", "street", "district", "search")}
    kind = api("GET", "/block_types/slug/local-file-system")["id"]
    schema = api("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})[0]["id"]
    block = {"name": "evil", "data": {"basepath": str(tmp_path)}, "block_type_id": kind, "block_schema_id": schema}
    storage = api("POST", "/block_documents/", block)["id"]
    touch = f"touch {tmp_path}/pulled"
    step = {"prefect.deployments.steps.run_shell_script": {"script": touch}}
    command = {"command": f"touch {tmp_path}/commanded", "env": {"PYTHONPATH": str(tmp_path), "EVIL": "1"}}
    entry = {"entrypoint": f"{tmp_path}/evil.py:evil", "path": str(tmp_path)}
    api("PATCH", f"/deployments/{ids['camera']}", {"pull_steps": [step]})
    api("PATCH", f"/deployments/{ids['building']}", entry)
    api("PATCH", f"/deployments/{ids['street']}", {"job_variables": command})
    api("PATCH", f"/deployments/{ids['district']}", {"storage_document_id": storage, **entry, "pull_steps": [step]})
    api("PATCH", f"/deployments/{ids['search']}", {"enforce_parameter_schema": False})
    units = {"camera": "d1/s1/b1/c1", "building": "d1/s1/b1", "street": "d1/s1", "district": "d1"}
    runs = {
        flow: api.start(ids[flow], {"parameters": {"unit": unit}}, job_variables=command)
        for flow, unit in units.items()
    }
    by_block = api.start(ids["search"], {"parameters": {"$ref": {"block_document_id": storage}}})
    theirs = {"name": "evil", "flow_id": api("POST", "/flows/", {"name": "evil"})["id"], "pull_steps": [step], **entry}
    never = api.start(api("POST", "/deployments/", theirs)["id"], {})
    for flow, run in runs.items():
        assert api.end_of(run)["type"] == "COMPLETED", flow
        assert api("GET", f"/flow_runs/{run}")["name"] == units[flow]
    assert api.end_of(by_block)["type"] == "FAILED"
    assert api.state(never)["type"] == "SCHEDULED"
    assert {path.name for path in tmp_path.iterdir()} == {"evil.py", "runner.log"}
