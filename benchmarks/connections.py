"""Connections to the database while four resolves and four searches run at once on one data directory.

    python -m benchmarks.connections [--cameras 16] [--people 24]

Renders a city, resolves half of its crops, takes in the rest, and starts all eight commands together. Looks at
`pg_stat_activity` ten times a second. Prints the most connections that were in use at a time, of all and of one
process, and whether all commands succeeded.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.home import home
from benchmarks.overhead import PROGRAM, make_model

_COMMANDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--people", type=int, default=24)
    given = parser.parse_args()
    with home() as folder:
        os.environ["URBAN_REID_HOME"] = str(folder / "home")
        _fill(folder, given.cameras, given.people)
        _measure()


def _run(*arguments: str) -> None:
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"urban-reid {' '.join(arguments)}: {done.stderr}")


def _fill(folder: Path, cameras: int, people: int) -> None:
    from synthetic.rendered_city import simulate_city, write_city

    city = folder / "city"
    write_city(simulate_city(2, cameras=cameras, people=people, duration_s=900), city)
    make_model("demo", folder / "model")
    lines = (city / "manifest.jsonl").read_text().splitlines()
    (city / "half.jsonl").write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    _run("city", "load", str(city / "city.yaml"))
    _run("models", "register", "demo", str(folder / "model"))
    _run("models", "use", "demo")
    _run("ingest", "manifest", str(city / "half.jsonl"))
    _run("resolve", "--unit", "d1")
    _run("ingest", "manifest", str(city / "manifest.jsonl"))


def _measure() -> None:
    from sqlalchemy import text

    from pipeline.store import Store
    from schemas.settings import settings

    in_use = text(
        "SELECT application_name AS name, count(*) AS many FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1"
    )
    most = most_of_one = 0
    with Store.open(settings(), "benchmark") as store:
        with store.begin() as connection:
            key = connection.execute(text("SELECT encode(key, 'hex') FROM crop ORDER BY id LIMIT 1")).scalar_one()
            limit = connection.execute(text("SHOW max_connections")).scalar_one()
        search = ["search", "--unit", "d1", "--probe", key, "--reason", "a benchmark"]
        running = [
            subprocess.Popen([*PROGRAM, *arguments, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for arguments in [["resolve", "--unit", "d1"]] * _COMMANDS + [search] * _COMMANDS
        ]
        while any(process.poll() is None for process in running):
            with store.begin() as connection:
                rows = connection.execute(in_use).all()
            of_process: dict[str, int] = {}
            for row in rows:
                process = row.name.partition("(")[2]
                of_process[process] = of_process.get(process, 0) + row.many
            most = max(most, sum(of_process.values()))
            most_of_one = max(most_of_one, *of_process.values(), 0)
            time.sleep(0.1)
    failed = sum(process.returncode != 0 for process in running)
    print(f"{most} of {limit} connections in use at most, {most_of_one} by one process; {failed} commands failed")


if __name__ == "__main__":
    main()
