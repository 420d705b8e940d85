"""The runner of `urban-reid up`, with a real server: it starts our flows and nothing that rows of the API name."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.environment import environment
from flows.server import PrefectServer
from tests.helpers.command_line import environment_of
from tests.helpers.prefect_api import EVIL, Api
from tests.helpers.town import Town
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.system

PATIENCE_S = 180.0


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
            wait_until((settings.home / "prefect" / "serving").exists, PATIENCE_S)
            yield Api(settings.home, server.url, PATIENCE_S)
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
    ids = {
        flow: api("GET", f"/deployments/name/{flow}/urban-reid")["id"]
        for flow in ("camera", "building", "street", "district", "search")
    }
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
        assert api.run(run)["name"] == units[flow]
    assert api.end_of(by_block)["type"] == "FAILED"
    assert api.run(never)["state"]["type"] == "SCHEDULED"
    assert {path.name for path in tmp_path.iterdir()} == {"evil.py", "runner.log"}
