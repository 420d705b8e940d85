"""Operators at work, all at once: they search and review for some minutes, and nothing may be lost.

    python -m benchmarks.operators [--operators 20] [--minutes 10] [--people 60] [--cameras 8] [--home DIR]

A rendered city becomes a live home: an administrator makes accounts, each operator asks for an authorization in a case
of their own, a supervisor approves it, and row-level security decides what each of them sees. `urban-reid up` serves
it. Then locust sends the operators (`benchmarks.operator_visits`) through the console, with seconds between two pages.

At the end it is checked that no request failed, that the audit has a row of each thing that was asked under the name
of who asked it and no other, that its chain holds, that every search was answered, and that the answers of reviews are
those that were given. Printed are the percentiles of each kind of request, and processor time. Exit code 1 where
something is missing. `--home`: keeps the home, and takes it as it is if it was made by this program.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr
from sqlalchemy import text

from benchmarks.cities import fill
from benchmarks.home import home
from pipeline.crops.crop_store import CropStore
from pipeline.governance.accounts import add_account
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.authorizations import approve, ask, open_case, what_it_opens
from pipeline.governance.purposes import add_purpose, state_assessment
from pipeline.governance.sessions import sign_in
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.parameters import AuthorizationParameters
from schemas.roles import Role
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city

_PASSWORD = "a long night at the benchmark"  # noqa: S105 # nosec B105
#: Actions whose rows of the audit are counted.
_ACTIONS = ("session.start", "people.show", "person.show", "search.start", "review.show", "review.answer")
_TRUTH = text(
    "SELECT encode(i.key, 'hex') AS key, min(t.truth) AS person FROM identity i JOIN identity_member m "
    "ON m.identity_id = i.id JOIN crop_truth t ON t.crop_id = m.crop_id WHERE i.level = 'camera' "
    "GROUP BY i.key HAVING count(DISTINCT t.truth) = 1"
)
_AUDIT = text("SELECT actor, action, count(*) FROM audit WHERE action = ANY(:actions) AND at > :since GROUP BY 1, 2")
_ANSWERS = text(
    "SELECT a.reviewer, encode(p.left_key, 'hex'), encode(p.right_key, 'hex'), a.said::text FROM review_answer a "
    "JOIN review_pair p ON p.answer_id = a.id WHERE a.at > :since"
)
_UNANSWERED = text("SELECT count(*) FROM search_request WHERE finished_at IS NULL")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    with home(arguments.home) as path, tempfile.TemporaryDirectory() as temporary:
        settings = Settings(home=path, database_url=None)
        with Store.open(settings, "benchmark") as store:
            made = path / "operators.json"
            if not made.exists():
                plan = prepared(store, arguments.operators, arguments.people, arguments.cameras)
                made.write_text(json.dumps(plan))
            plan = json.loads(made.read_text())
            since = now(store)
        plan["result"] = str(Path(temporary) / "result.json")
        with up(path) as (url, processes):
            before, began = processor_s(processes), time.perf_counter()
            send(plan, Path(temporary) / "plan.json", url, arguments.operators, arguments.minutes)
            spent = processor_s(processes) - before
            print(f"processor of the system: {spent / (time.perf_counter() - began):.0%} of one core", flush=True)
        result = json.loads(Path(plan["result"]).read_text())
        tell(result)
        with Store.open(settings, "benchmark") as store:
            faults = check(store, result, since)
    for fault in faults:
        print(f"FAULT: {fault}")
    asked = sum(count for _, _, count in result["asked"])
    if faults:
        sys.exit(1)
    print(f"no error; all {asked} rows of the audit and all {len(result['given'])} answers are there")


def prepared(store: Store, operators: int, people: int, cameras: int) -> dict[str, Any]:
    """Fills and resolves a home, and makes accounts and authorizations. Returns who there is, and the truth."""
    model = fill(store, simulate_city(1, cameras, people))
    core, crops = open_core(store.settings, model.directory(store.settings)), CropStore(store.settings)
    units = units_within(store, "d1")
    for unit in units:
        if unit.count("/") == 3:
            embed_camera(store, core, crops, model, unit)
        resolve_unit(store, core, model, unit, settings=store.settings.association)
    add_account(store, "ada", _PASSWORD, Role.ADMINISTRATOR)
    ada = as_(store, "ada")
    add_account(ada, "sven", _PASSWORD, Role.SUPERVISOR)
    add_purpose(ada, "missing-person", "a person who is missed", reason="benchmark")
    state_assessment(ada, "benchmark", reason="benchmark")
    sven = as_(store, "sven")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    asked = AuthorizationParameters(
        purpose="missing-person",
        legal_basis="benchmark",
        sought="somebody",
        units=("d1",),
        from_time=start,
        to_time=start + timedelta(days=1),
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )
    made = []
    for number in range(operators):
        name = f"operator{number + 1}"
        add_account(ada, name, _PASSWORD, Role.OPERATOR)
        operator = as_(store, name)
        open_case(operator, f"case {number + 1}", reason="benchmark")
        authorization = ask(operator, f"case {number + 1}", asked)
        _, opens = what_it_opens(sven, str(authorization))
        approve(sven, str(authorization), opens, reason="benchmark")
        made.append({"name": name, "password": _PASSWORD, "authorization": str(authorization)})
    with store.owning() as connection:
        truth = {row.key: row.person for row in connection.execute(_TRUTH)}
    return {"operators": made, "truth": truth, "units": [unit for unit in units if unit.count("/") < 3]}


def as_(store: Store, name: str) -> Store:
    token, _ = sign_in(store, name, _PASSWORD)
    return store.under(SecretStr(token))


def now(store: Store) -> datetime:
    """By the clock of the database."""
    with store.owning() as connection:
        moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment


@contextmanager
def up(home: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """`urban-reid up` on the home: the console's address, and its processes with those of the database."""
    command: list[str | Path] = [Path(sys.executable).with_name("urban-reid"), "up", "--json"]
    environment = os.environ | {"URBAN_REID_HOME": str(home)}
    services = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert services.stdout is not None
        address = json.loads(services.stdout.readline())["console"]["url"]
        postgres = psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))
        yield address, [psutil.Process(services.pid), postgres]
    finally:
        services.send_signal(signal.SIGINT)
        services.wait()


def processor_s(processes: Sequence[psutil.Process]) -> float:
    """Processor time of the processes and of all that they started, those that ended too."""
    every = {one.pid: one for process in processes for one in (process, *process.children(recursive=True))}
    times = [one.cpu_times() for one in every.values() if one.is_running()]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


def send(plan: dict[str, Any], file: Path, url: str, operators: int, minutes: float) -> None:
    """Sends the operators, and waits until the last of them has done what they began."""
    file.write_text(json.dumps(plan))
    visits = Path(__file__).with_name("operator_visits.py")
    options = ["-f", visits, "--headless", "--host", url, "--users", operators, "--spawn-rate", 2]
    options += ["--run-time", f"{round(minutes * 60)}s", "--stop-timeout", 120, "--loglevel", "WARNING"]
    command = [sys.executable, "-m", "locust", *map(str, options), "--skip-log-setup", "--exit-code-on-error", "0"]
    environment = os.environ | {"OPERATORS_PLAN": str(file)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def tell(result: dict[str, Any]) -> None:
    print(f"{'ms':24} {'requests':>8} {'failed':>6} {'p50':>7} {'p95':>7} {'longest':>8}")
    for one in result["kinds"]:
        times = (one["p50_ms"], one["p95_ms"], one["longest_ms"])
        cells = " ".join(f"{value:{width}.0f}" for value, width in zip(times, (7, 7, 8), strict=True))
        print(f"{one['kind']:24} {one['requests']:8} {one['failures']:6} {cells}")
    for line in result["changed"]:
        print(f"changed meanwhile: {line}")


def check(store: Store, result: dict[str, Any], since: datetime) -> list[str]:
    """What is missing or too much; empty where all is well. since: before the visits."""
    faults = list(result["errors"])
    with store.owning() as connection:
        rows = connection.execute(_AUDIT, {"actions": list(_ACTIONS), "since": since})
        audited = {(row.actor, row.action): row.count for row in rows}
        answers = Counter(
            (row[0], frozenset(row[1:3]), row[3]) for row in connection.execute(_ANSWERS, {"since": since})
        )
        unanswered = connection.execute(_UNANSWERED).scalar_one()
    asked = {(actor, action): count for actor, action, count in result["asked"]}
    for key in sorted(audited.keys() | asked.keys()):
        if audited.get(key, 0) != asked.get(key, 0):
            faults.append(f"{' '.join(key)}: {audited.get(key, 0)} rows of the audit for {asked.get(key, 0)} requests")
    given = Counter((who, frozenset((left, right)), said) for who, left, right, said in result["given"])
    if answers != given:
        faults.append(f"answers that are not those given: {answers - given}, and not there: {given - answers}")
    if unanswered:
        faults.append(f"{unanswered} searches were not answered")
    return faults + [f"the audit: {fault}" for fault in verify_city(store).faults]


if __name__ == "__main__":
    main()
