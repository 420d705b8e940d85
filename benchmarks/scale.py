"""How cost and memory grow with the number of cameras, the flat methods beside it, and where the time goes.

    python benchmarks/scale.py --cameras 400,1000,4000,10000 --days 0.0833 [--no-baselines] [--where 400]

Each size is a city of its own in a home of its own, with the same people and passages a camera: `urban-reid simulate
--resolve` in two processes. The exponent is the slope of log seconds on log cameras (least squares). `--where`: one
city more, resolved in one process, whose main thread is looked at every 5 ms.
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
from home import home

from pipeline.city.units import read_city
from pipeline.resolve import resolve_unit, units_within
from pipeline.simulation import take_in
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.levels import Level
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

#: Which step a moment belongs to: the first of these that the innermost matching file's path holds.
STEPS = {
    "Postgres: queries, COPY, rows": (
        "psycopg2",
        "sqlalchemy",
        "pipeline/store/",
        "resolve/read.py",
        "resolve/write.py",
    ),
    "core: attended distances": ("reid_core/",),
    "nearest and gates": ("association/block.py", "association/geometry.py"),
    "probabilities, transit": ("association/score.py", "association/transit.py", "pipeline/calibration/pairs.py"),
    "clustering": ("association/cluster.py", "association/reassign.py", "association/operator.py"),
}
REST = "identities, prototypes, bookkeeping"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", default="400,1000,4000,10000", help="sizes, ascending")
    parser.add_argument("--days", type=float, default=1 / 12, help="simulated days of each city")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--where", type=int, metavar="N", help="cameras of a city whose resolve is looked into")
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.cameras.split(",") if size]
    if sizes:
        table(sizes, asked.days, asked.seed, baselines=asked.baselines)
    if asked.where:
        for step, share in where(asked.where, asked.days, asked.seed).items():
            print(f"{share:6.1%}  {step}")


def table(sizes: Sequence[int], days: float, seed: int, *, baselines: bool) -> None:
    seconds: dict[str, list[float]] = {}
    for size in sizes:
        found = simulated(size, days, seed, baselines=baselines)
        its = {"urban-reid": found["resolve_s"], **{name: row["seconds"] for name, row in found["baselines"].items()}}
        if not seconds:
            names = (f"{name} s / IDF1" for name in its)
            print(f"| cameras | tracklets | peak MB | database MB | {' | '.join(names)} |\n{'|---' * (4 + len(its))}|")
        idf1 = {"urban-reid": found["idf1"], **{name: row["idf1"] for name, row in found["baselines"].items()}}
        cells = [f"{value:.1f} / {idf1[name]['district']:.3f}" for name, value in its.items()]
        head = (size, found["tracklets"], found["peak_mb"], found["database_mb"])
        print(f"| {' | '.join([*map(str, head), *cells])} |", flush=True)
        for name, value in its.items():
            seconds.setdefault(name, []).append(value)
    if len(sizes) > 1:
        slopes = (f"{np.polyfit(np.log(sizes), np.log(its), 1)[0]:.2f}" for its in seconds.values())
        print(f"| exponent | | | | {' | '.join(slopes)} |")


def simulated(cameras: int, days: float, seed: int, *, baselines: bool) -> dict[str, Any]:
    program = Path(sys.executable).with_name("urban-reid")
    asked = ["simulate", "--cameras", cameras, "--days", days, "--seed", seed, "--resolve", "--json"]
    with home() as folder:
        done = subprocess.run(
            [program, *map(str, asked), *(["--baselines"] if baselines else [])],
            env=os.environ | {"URBAN_REID_HOME": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def where(cameras: int, days: float, seed: int) -> Mapping[str, float]:
    """The share of each step in resolving all units one after the other."""
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        model = take_in(store, embedding_city(EmbeddingCitySettings(cameras=cameras, days=days, seed=seed)))
        core = open_core(store.settings, model.directory(store.settings))
        city = read_city(store)
        seen: Counter[str] = Counter()
        with looking(seen):
            for district in (unit.code for unit in city.units if unit.level is Level.DISTRICT):
                for unit in units_within(store, district):
                    resolve_unit(store, core, model, unit, settings=store.settings.association)
    return {step: many / seen.total() for step, many in seen.most_common()}


@contextmanager
def looking(seen: Counter[str]) -> Iterator[None]:
    """Counts the step that the calling thread is in, every 5 ms."""
    watched, done = threading.get_ident(), threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            seen[step_of(sys._current_frames().get(watched))] += 1

    watcher = threading.Thread(target=look, daemon=True)
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
