"""What a resolve costs: processor time, round trips to Postgres, each statement; and the same of another checkout.

    python -m benchmarks.resolve_cost --cameras 100 --days 0.0417 --statements 20
    python -m benchmarks.resolve_cost --cameras 400 --processes 2 --base CHECKOUT --turns 3

Each side ingests its own copy of one simulated city. Every turn resolves it anew: the clock, and processor time of the
program and of its Postgres with all backends. One process resolves the units one after the other, with one thread, and
its round trips are counted by statement and by level (a transaction's BEGIN and COMMIT are one each); with more
processes the clock is what counts. With `--base` the code of another checkout, with the same environment, takes turns
with this one, so that both meet the same load of the machine; smallest of all turns. Exits with 1 if the decision
digests differ.
"""

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine.default import DefaultDialect

import pipeline.store.copy
from benchmarks.home import home
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import read_city
from pipeline.registry import model_in_use
from pipeline.resolve import resolve_unit, units_within
from pipeline.resolve.processes import resolving
from pipeline.simulation import ingest_simulated
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.levels import Level, level_of
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

#: calls, seconds of the clock, of Postgres' processor, rows
Cost = list[float]
HERE = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--days", type=float, default=1 / 12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--base", type=Path, metavar="CHECKOUT", help="another checkout of this repository")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--statements", type=int, default=0, metavar="N", help="show the N that take longest")
    parser.add_argument("--side", nargs=2, metavar=("DO", "HOME"), help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.side:
        what, folder = arguments.side
        print(json.dumps({"ingest": ingest, "resolve": resolve}[what](arguments, Path(folder))))
        return 0
    sides = {"now": HERE} | ({"base": arguments.base.resolve()} if arguments.base else {})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    with home() as folder:
        for name, checkout in sides.items():
            run(checkout, "ingest", folder / name)
        for _ in range(arguments.turns):
            for name, checkout in sides.items():
                copy = shutil.copytree(folder / name, folder / "turn", symlinks=True)
                own_as(folder / name, copy)
                found[name].append(run(checkout, "resolve", copy))
                shutil.rmtree(copy)
    show(found)
    if arguments.statements:
        show_statements(found["now"][-1]["statements"], arguments.statements)
    return int(len({turn["digest"] for turns in found.values() for turn in turns}) > 1)


def run(checkout: Path, what: str, folder: Path) -> dict[str, Any]:
    """This program in a process of its own, with the code of `checkout`."""
    command = [sys.executable, "-P", __file__, *sys.argv[1:], "--side", what, str(folder)]
    done = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        check=True,
    )
    answered: dict[str, Any] = json.loads(done.stdout)
    return answered


def own_as(source: Path, target: Path) -> None:
    """The owners of the files below, as root's embedded database runs as another user."""
    for path in [source, *source.rglob("*")]:
        status = path.lstat()
        os.chown(target / path.relative_to(source), status.st_uid, status.st_gid, follow_symlinks=False)


def ingest(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    folder.mkdir(mode=0o711)
    plan = EmbeddingCitySettings(cameras=arguments.cameras, days=arguments.days, seed=arguments.seed)
    with Store.open(Settings(home=folder), "benchmark") as store:
        ingest_simulated(store, embedding_city(plan))
    return {}


def resolve(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    counted: dict[tuple[str, str], Cost] = defaultdict(lambda: [0, 0.0, 0.0, 0])
    level = ["open"]
    with counting(counted, level), Store.open(Settings(home=folder), "benchmark") as store:
        districts = [unit.code for unit in read_city(store).units if unit.level is Level.DISTRICT]
        server = psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
        if arguments.processes > 1:
            with resolving(store.settings, arguments.processes) as resolve_all:
                program_s, postgres_s, began = 0.0, processor_s(server), time.perf_counter()
                resolve_all(districts)
                clock_s = time.perf_counter() - began
                postgres_s = processor_s(server) - postgres_s
            spent = resource.getrusage(resource.RUSAGE_CHILDREN)  # with their start
            program_s = spent.ru_utime + spent.ru_stime
        else:
            with store.begin() as connection:
                model = model_in_use(connection)
            core = open_core(store.settings, model.directory(store.settings))
            program_s, postgres_s, began = time.process_time(), processor_s(server), time.perf_counter()
            for unit in (unit for district in districts for unit in units_within(store, district)):
                level[0] = level_of(unit).value
                resolve_unit(store, core, model, unit, settings=store.settings.association)
            clock_s = time.perf_counter() - began
            program_s, postgres_s = time.process_time() - program_s, processor_s(server) - postgres_s
        level[0] = "open"
        with store.begin() as connection:
            digest = decision_digest(connection)
    statements = [[*key, *cost] for key, cost in counted.items() if key[0] != "open"]
    return {
        "clock_s": clock_s,
        "program_s": program_s,
        "postgres_s": postgres_s,
        "round_trips": sum(cost[0] for (at, _), cost in counted.items() if at != "open"),
        "waits_s": sum(cost[1] for (at, _), cost in counted.items() if at != "open"),
        "statements": statements,
        "digest": digest,
    }


def processor_s(server: psutil.Process) -> float:
    """Processor time of a Postgres so far: of those of its processes that have ended and those that have not."""
    times = [server.cpu_times(), *(child.cpu_times() for child in server.children())]
    ended = times[0].children_user + times[0].children_system
    return float(ended + sum(one.user + one.system for one in times))


@contextmanager
def counting(counted: dict[tuple[str, str], Cost], level: list[str]) -> Iterator[None]:
    """Adds what this process asks Postgres to `counted`, by level and statement."""
    execute: Any = DefaultDialect.do_execute
    commit, rollback = DefaultDialect.do_commit, DefaultDialect.do_rollback
    copy: Any = pipeline.store.copy._copy
    ping: Any = PGDialect_psycopg2.do_ping

    def cost(name: str, connection: Any, ask: Callable[[], Any], rows: Callable[[], int] = lambda: 0) -> Any:
        connection = getattr(connection, "driver_connection", connection)
        status = Path(f"/proc/{connection.info.backend_pid}/schedstat")
        if connection.info.transaction_status == 0 and not connection.autocommit:
            counted[level[0], "BEGIN"][0] += 1  # psycopg2 sends it before the first statement
        began, before = time.perf_counter(), int(status.read_text().split()[0])
        answer = ask()
        one = counted[level[0], shortened(name)]
        one[0] += 1
        one[1] += time.perf_counter() - began
        one[2] += (int(status.read_text().split()[0]) - before) / 1e9
        one[3] += max(rows(), 0)
        return answer

    def do_execute(dialect: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        cost(
            statement,
            cursor.connection,
            lambda: execute(dialect, cursor, statement, parameters, context),
            lambda: cursor.rowcount,
        )

    def do_copy(connection: Any, command: Any, file: Any) -> None:
        under = connection.connection.driver_connection
        cost(command.as_string(under), under, lambda: copy(connection, command, file))

    def ended(name: str, end: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def do(dialect: Any, connection: Any) -> None:
            under = getattr(connection, "driver_connection", connection)
            if under.info.transaction_status == 0:
                end(dialect, connection)  # nothing began, and nothing is sent
            else:
                cost(name, under, lambda: end(dialect, connection))

        return do

    def do_ping(dialect: Any, connection: Any) -> Any:
        return cost("ping", connection, lambda: ping(dialect, connection))

    with (
        patch.object(DefaultDialect, "do_execute", do_execute),
        patch.object(DefaultDialect, "do_commit", ended("COMMIT", commit)),
        patch.object(DefaultDialect, "do_rollback", ended("ROLLBACK", rollback)),
        patch.object(PGDialect_psycopg2, "do_ping", do_ping),
        patch.object(pipeline.store.copy, "_copy", do_copy),
    ):
        yield


def shortened(statement: str) -> str:
    """The statement without its values."""
    plain = re.sub(r"'[^']*'(::[\w\[\]]+)?", "?", " ".join(statement.split()))
    return re.sub(r"ARRAY\[[^\]]*\]", "?", plain)


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    names = ("clock_s", "program_s", "postgres_s", "waits_s", "round_trips")
    print(f"| | {' | '.join(names)} | digest |\n{'|---' * (len(names) + 2)}|")
    for side, turns in found.items():
        least = [min(turn[name] for turn in turns) for name in names]
        print(f"| {side} | {' | '.join(f'{one:.5g}' for one in least)} | {turns[-1]['digest'][:16]} |")


def show_statements(statements: list[list[Any]], count: int) -> None:
    print(f"\n| level | statement | calls | clock s | processor s | rows |\n{'|---' * 6}|")
    for level, name, calls, clock_s, postgres_s, rows in sorted(statements, key=lambda one: -one[3])[:count]:
        print(f"| {level} | {name[:100]} | {calls} | {clock_s:.3f} | {postgres_s:.3f} | {rows} |")


if __name__ == "__main__":
    sys.exit(main())
