"""How time and memory grow with the number of cameras, beside the baselines, and how the time is spent.

    python -m benchmarks.scale --cameras 400,1000,4000,10000 --days 0.0833 [--no-baselines] [--where 400]

Each size is a city in a data directory of its own, with the same people and passages per camera: `urban-reid simulate
--resolve` in two processes. The exponent is the slope of log seconds over log cameras (least squares). `--where`: one
more city, resolved in one process, whose main thread is sampled every 5 ms.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.home import home
from pipeline.city.units import read_city
from pipeline.resolve import resolve_unit, units_within
from pipeline.simulation import ingest_simulated
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.levels import Level
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

#: Step of a sample: the first whose file names occur in the path of the innermost matching frame.
STEPS = {
    "Postgres: queries, COPY, rows": (
        "psycopg2",
        "sqlalchemy",
        "pipeline/store/",
        "resolve/read.py",
        "resolve/persistent_ids.py",
        "resolve/write.py",
    ),
    "core: attended distances": ("reid_core/",),
    "nearest and gates": ("association/candidates.py", "association/geometry.py"),
    "probabilities, transit": ("association/pair_scores.py", "association/log_odds.py", "association/transit.py"),
    "clustering": (
        "association/clustering.py",
        "association/matching.py",
        "association/reassignment.py",
        "association/associate.py",
    ),
}
REST = "identities, prototypes, bookkeeping"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", default="400,1000,4000,10000", help="sizes, ascending")
    parser.add_argument("--days", type=float, default=1 / 12, help="simulated days of each city")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--where", type=int, metavar="N", help="cameras of a city whose resolve is sampled")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.cameras.split(",") if size]
    if sizes:
        table(sizes, arguments.days, arguments.seed, baselines=arguments.baselines)
    if arguments.where:
        for step, share in where(arguments.where, arguments.days, arguments.seed).items():
            print(f"{share:6.1%}  {step}")


def table(sizes: Sequence[int], days: float, seed: int, *, baselines: bool) -> None:
    """Prints a line for each size, and the exponents."""
    seconds: dict[str, list[float]] = {}
    for size in sizes:
        found = simulated(size, days, seed, baselines=baselines)
        rows = found["baselines"].items()
        times = {"urban-reid": found["resolve_s"], **{name: row["seconds"] for name, row in rows}}
        if not seconds:
            names = (f"{name} s / IDF1" for name in times)
            print(f"| cameras | tracklets | peak MB | database MB | {' | '.join(names)} |")
            print(f"{'|---' * (4 + len(times))}|")
        idf1 = {"urban-reid": found["idf1"], **{name: row["idf1"] for name, row in rows}}
        cells = [f"{value:.1f} / {idf1[name]['district']:.3f}" for name, value in times.items()]
        head = (size, found["tracklets"], found["peak_mb"], found["database_mb"])
        print(f"| {' | '.join([*map(str, head), *cells])} |", flush=True)
        for name, value in times.items():
            seconds.setdefault(name, []).append(value)
    if len(sizes) > 1:
        slopes = (f"{np.polyfit(np.log(sizes), np.log(values), 1)[0]:.2f}" for values in seconds.values())
        print(f"| exponent | | | | {' | '.join(slopes)} |")


def simulated(cameras: int, days: float, seed: int, *, baselines: bool) -> dict[str, Any]:
    """What `urban-reid simulate --json` prints."""
    program = Path(sys.executable).with_name("urban-reid")
    options = ["simulate", "--cameras", cameras, "--days", days, "--seed", seed, "--resolve", "--json"]
    with home() as folder:
        done = subprocess.run(
            [program, *map(str, options), *(["--baselines"] if baselines else [])],
            env=os.environ | {"URBAN_REID_HOME": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def where(cameras: int, days: float, seed: int) -> Mapping[str, float]:
    """Share of each step in the time of resolving all units one after the other."""
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        plan = EmbeddingCitySettings(cameras=cameras, days=days, seed=seed)
        model = ingest_simulated(store, embedding_city(plan))
        core = open_core(store.settings, model.directory(store.settings))
        city = read_city(store)
        samples: Counter[str] = Counter()
        with sampling(samples):
            for district in (unit.code for unit in city.units if unit.level is Level.DISTRICT):
                for unit in units_within(store, district):
                    resolve_unit(store, core, model, unit, settings=store.settings.association)
    return {step: count / samples.total() for step, count in samples.most_common()}


@contextmanager
def sampling(samples: Counter[str]) -> Iterator[None]:
    """Counts the step of the calling thread every 5 ms, in the background."""
    watched, done = threading.get_ident(), threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            samples[step_of(sys._current_frames().get(watched))] += 1

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def step_of(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        for step, files in STEPS.items():
            if any(file in path for file in files):
                return step
        frame = frame.f_back
    return REST


if __name__ == "__main__":
    main()
