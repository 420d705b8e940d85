"""Workers as processes, with a real Prefect server: one is killed in the middle, and nothing that rows name is run."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from flows.environment import environment
from flows.names import pool_name
from flows.server import PrefectServer
from flows.workers.options import WorkerOptions
from pipeline.city.status import status
from pipeline.store.locks import unit_lock
from schemas.settings import Settings
from tests.helpers import prefect_api
from tests.helpers.prefect_api import EVIL
from tests.helpers.town import Town
from tests.helpers.worker_hosts import PATIENCE_S, Host, hosts, other_home, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

POOL = pool_name("resolve")
LOST_S = 15


class Api(prefect_api.Api):
    """With the workers of our pool."""

    def workers(self) -> list[str]:
        answer = prefect_api.send("POST", f"{self.url}/work_pools/{POOL}/workers/filter", self.secret, {})
        return [worker["name"] for worker in answer.json()] if answer.is_success else []

    def deployment(self, flow: str) -> str:
        def found() -> str | None:
            path = f"{self.url}/deployments/name/{flow}/urban-reid-workers"
            answer = prefect_api.send("GET", path, self.secret)
            return str(answer.json()["id"]) if answer.is_success else None

        return str(wait_until(found))

    def resolve(self, flow: str, unit: str, **more: object) -> str:
        return self.start(self.deployment(flow), {"parameters": {"unit": unit}}, **more)

    def worker_of(self, run: str) -> str:
        return str(self.run(run)["labels"].get("prefect.worker.name", ""))

    def is_running(self, run: str, host: str) -> bool:
        found = self.run(run)
        return found["state"]["type"] == "RUNNING" and self.worker_of(run).startswith(host)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A Prefect server that hosts use as one that the user supplies."""
    home = tmp_path_factory.mktemp("prefect-server")
    with PrefectServer(Settings(home=home)) as server:
        yield Api(home, server.wait(), PATIENCE_S)
        server.stop()


def digest(town: Town) -> str:
    return str(status(town.store)["digest"])


def variables(api: Api) -> dict[str, str]:
    return {
        "URBAN_REID_PREFECT_URL": api.url,
        "PREFECT_API_AUTH_STRING": api.secret,
        "URBAN_REID_HOST_LOST_S": str(LOST_S),
    }


def assert_no_window_twice(town: Town) -> None:
    with town.store.begin() as connection:
        counts = "SELECT unit, window_start FROM run WHERE superseded_at IS NULL GROUP BY 1, 2"
        twice = text(f"{counts} HAVING count(*) > 1")
        assert not connection.execute(twice).all()


def only_left(town: Town, *units: str) -> bool:
    """Whether all units but these are resolved."""
    with town.store.begin() as connection:
        pending = text("SELECT unit FROM watermark WHERE dirty_from IS NOT NULL")
        return list(connection.scalars(pending)) == list(units)


def test_what_a_killed_worker_was_doing_another_finishes(
    town: Town, fresh_town: Callable[..., Town], lines: list[str], api: Api
) -> None:
    undisturbed = fresh_town()
    undisturbed.take_in(lines[:80])
    undisturbed.resolve()
    expected = digest(undisturbed)
    town.take_in(lines[:80])
    settings = town.store.settings
    words = ("--role", "resolve", "--runs", "1")
    with other_home(settings) as home:
        first = Host("first", settings, settings.home, *words, **variables(api))
        second = Host("second", settings, home, *words, **variables(api))
        by_name = {"first": first, "second": second}

        def said() -> str:
            return f"{first.said()}\n{second.said()}"

        with hosts(first, second):
            wait_until(lambda: len(api.workers()) == 2, said)
            with unit_lock(town.store, "d1"):  # so that the run is in the middle for as long as it takes
                run = api.resolve("district", "d1")
                wait_until(lambda: only_left(town, "d1") and api.run(run)["state"]["type"] == "RUNNING", said)
                killed = by_name.pop(api.worker_of(run).split("-")[0])
                killed.kill()
                (left,) = by_name.values()
                wait_until(lambda: api.is_running(run, left.name), said)
            assert api.end_of(run, said)["type"] == "COMPLETED", said()
            assert digest(town) == expected
            assert_no_window_twice(town)
            assert "was lost, and it is begun again" in left.said()
            assert [name.split("-")[0] for name in api.workers()] == [left.name]

            # Two runs of the same unit at once do no harm: one of them finds nothing left to do.
            undisturbed.take_in(lines[80:160])
            undisturbed.resolve()
            town.take_in(lines[80:160])
            killed.start()
            wait_until(lambda: len(api.workers()) == 2, said)
            with unit_lock(town.store, "d1"):
                both = [api.resolve("district", "d1") for _ in range(2)]
                wait_until(lambda: all(api.run(run)["state"]["type"] == "RUNNING" for run in both), said)
                assert {api.worker_of(run).split("-")[0] for run in both} == {"first", "second"}
            assert [api.end_of(run, said)["type"] for run in both] == ["COMPLETED", "COMPLETED"]
            assert digest(town) == digest(undisturbed)
            assert_no_window_twice(town)
            left.end()
            wait_until(lambda: [name.split("-")[0] for name in api.workers()] == [killed.name], said)
    assert api.secret not in said()


@contextmanager
def process_of(town: Town, api: Api, log: Path, *module: str, **more: str) -> Iterator[None]:
    """A process of the town's home with the server that the user supplies; it ends well when it is asked to."""
    settings = town.store.settings.model_copy(update={"prefect_url": api.url})
    of_host = environment(settings, api.url) | variables(api)
    of_host |= {"URBAN_REID_DATABASE_URL": settings.database_url or "", "PREFECT_WORKER_QUERY_SECONDS": "1", **more}
    with log.open("wb") as out:
        command = [sys.executable, "-P", "-m", *module]
        process = subprocess.Popen(command, env=of_host, cwd=log.parent, stdout=out, stderr=out)
    try:
        yield
        process.terminate()
        assert process.wait(120) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def worker(town: Town, api: Api, tmp_path: Path) -> Iterator[Path]:
    """A worker of role resolve on the town's home; its log."""
    log = tmp_path / "worker.log"
    options = WorkerOptions(role="resolve", units=("d1",), runs=2, name="host").model_dump_json()
    with process_of(town, api, log, "flows.workers.worker", options):
        yield log


def test_the_resolver_hands_windows_that_close_over_to_workers(
    town: Town, lines: list[str], api: Api, worker: Path, tmp_path: Path
) -> None:
    town.take_in(lines[:60])
    log = tmp_path / "resolver.log"

    def said() -> str:
        return worker.read_text() + log.read_text()

    with process_of(town, api, log, "urban_reid.resolver", URBAN_REID_FLOWS="workers"):
        wait_until(lambda: only_left(town), said)
    done = api("POST", "/flow_runs/filter", {"flow_runs": {"tags": {"all_": ["windows"]}}})
    assert done and {run["work_pool_name"] for run in done} == {POOL}
    assert digest(town) and town.resolve() == 0, "nothing was left to do"


def test_neither_pool_nor_deployment_nor_run_names_a_command_an_environment_or_code(
    town: Town, lines: list[str], api: Api, worker: Path, tmp_path: Path
) -> None:
    town.take_in(lines[:40])
    town.resolve()
    (tmp_path / "evil.py").write_text(EVIL)
    touch = f"touch {tmp_path}/pulled"
    step = {"prefect.deployments.steps.run_shell_script": {"script": touch}}
    entry = {"entrypoint": f"{tmp_path}/evil.py:evil", "path": str(tmp_path)}
    job = {"command": f"touch {tmp_path}/commanded", "env": {"PYTHONPATH": str(tmp_path), "EVIL": "1"}}
    template = {
        "job_configuration": {**job, "image": "evil", "name": "evil"},
        "variables": {"type": "object", "properties": {}, "additionalProperties": True},
    }
    units = {"camera": "d1/s1/b1/c1", "building": "d1/s1/b1", "street": "d1/s1", "district": "d1"}
    ids = {flow: api.deployment(flow) for flow in units}
    api("PATCH", f"/work_pools/{POOL}", {"base_job_template": template})
    api("PATCH", f"/deployments/{ids['camera']}", {"pull_steps": [step]})
    api("PATCH", f"/deployments/{ids['building']}", entry)
    api("PATCH", f"/deployments/{ids['street']}", {"job_variables": job})
    api("PATCH", f"/deployments/{ids['district']}", {**entry, "pull_steps": [step], "enforce_parameter_schema": False})
    runs = {flow: api.resolve(flow, unit, job_variables=job) for flow, unit in units.items()}
    path = f"/deployments/{ids['district']}/create_flow_run"
    asked = ({"parameters": {"unit": "d1", "command": touch}}, {"parameters": {"unit": "../x"}}, {"x": 1})
    others = [api("POST", path, {"parameters": one, "state": {"type": "SCHEDULED"}})["id"] for one in asked]
    flow = api("POST", "/flows/", {"name": "evil"})["id"]
    theirs = {"name": "evil", "flow_id": flow, "work_pool_name": POOL, **entry}
    evil = api("POST", "/deployments/", {**theirs, "pull_steps": [step], "job_variables": job})["id"]
    others.append(api("POST", f"/deployments/{evil}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"])
    for flow, run in runs.items():
        assert api.end_of(run, worker.read_text)["type"] == "COMPLETED", flow
        assert api.run(run)["name"] == units[flow]
    for run in others:
        assert api.end_of(run, worker.read_text)["type"] == "CRASHED"
    assert {path.name for path in tmp_path.iterdir()} == {"evil.py", "worker.log"}
    assert api.secret not in worker.read_text()
