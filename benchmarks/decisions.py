"""One decision digest, whatever happens on the way.

    python benchmarks/decisions.py [--cameras 48] [--days 0.5] [--seed 21]

The same city is resolved by one process; by four; by one that is killed (SIGKILL) again and again, each time later,
until it comes to its end; and with its crops in random order in two halves, with a resolve after each. A line each: the
decision digest, and what was there at each kill. Ends with 1 where the digests are not one.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from home import home
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.ingest.features import take_in_features
from pipeline.registry import model_in_use
from pipeline.resolve import resolve_unit, units_within
from pipeline.resolve.processes import resolving
from pipeline.simulation import take_in
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, PassageBatch, embedding_city
from synthetic.embedding_city.generator import Progress

DISTRICT = "d1"
#: Seconds after which the first kill comes, and how much longer each process may live than the one before.
FIRST_KILL_S, LATER_S = 8.0, 1.5


@dataclass(frozen=True)
class Arriving(EmbeddingCity):
    """A city of which only these crops have come."""

    crops: PassageBatch

    def batches(self, progress: Progress | None = None) -> Iterator[PassageBatch]:
        yield self.crops


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection)


def in_processes(city: EmbeddingCity, processes: int) -> str:
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        take_in(store, city)
        with resolving(store.settings, processes) as run:
            run([DISTRICT])
        return digest(store)


def resolve_alone(settings: Settings) -> None:
    with Store.open(settings, "benchmark") as store:
        with store.begin() as connection:
            model = model_in_use(connection)
        core = open_core(settings, model.directory(settings))
        for unit in units_within(store, DISTRICT):
            resolve_unit(store, core, model, unit, settings=settings.association)


def killed(city: EmbeddingCity) -> tuple[str, list[int]]:
    """The digest, and how many windows were written at each kill."""
    windows: list[int] = []
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        take_in(store, city)
        while True:
            process = multiprocessing.get_context("spawn").Process(target=resolve_alone, args=(store.settings,))
            process.start()
            process.join(FIRST_KILL_S * LATER_S ** len(windows))
            if process.exitcode is not None:
                assert process.exitcode == 0, process.exitcode
                return digest(store), windows
            process.kill()
            process.join()
            with store.begin() as connection:
                windows.append(connection.scalar(text("SELECT count(*) FROM run")) or 0)


def shuffled(city: EmbeddingCity, seed: int) -> str:
    batches = list(city.batches())
    columns = {field.name: np.concatenate([getattr(b, field.name) for b in batches]) for field in fields(PassageBatch)}
    order = np.random.default_rng(seed).permutation(len(columns["camera"]))
    first, second = (
        PassageBatch(**{name: values[rows] for name, values in columns.items()}) for rows in np.array_split(order, 2)
    )
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        model = take_in(store, Arriving(city.settings, city.plan, first))
        with resolving(store.settings, 2) as run:
            run([DISTRICT])
            take_in_features(store, model, city.camera_codes, second)
            run([DISTRICT])
        return digest(store)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=48)
    parser.add_argument("--days", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=21)
    asked = parser.parse_args()
    city = embedding_city(EmbeddingCitySettings(cameras=asked.cameras, days=asked.days, seed=asked.seed))
    found = []

    def tell(what: str, its: str) -> None:
        found.append(its)
        print(f"{its}  {what}", flush=True)

    tell("one process", in_processes(city, 1))
    tell("four processes", in_processes(city, 4))
    its, windows = killed(city)
    tell(f"killed {len(windows)} times, windows written by then: {windows}", its)
    tell("shuffled, in two halves", shuffled(city, asked.seed))
    return int(len(set(found)) > 1)


if __name__ == "__main__":
    sys.exit(main())
