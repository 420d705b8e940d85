"""One decision digest under other processes, kills and arrival orders.

    python -m benchmarks.decisions [--cameras 48] [--days 0.5] [--seed 21]

Resolves the same city in one process; in four; in one that is killed (SIGKILL) repeatedly, each time later, until it
finishes; and with its crops in random order in two halves, with a resolve after each. Prints the decision digest of
each, and the number of windows written at each kill. Exits with 1 if the digests differ.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from sqlalchemy import text

from benchmarks.home import home
from pipeline.city.decision_digest import decision_digest
from pipeline.ingest.features import take_in_features
from pipeline.registry import model_in_use
from pipeline.resolve import resolve_unit, units_within
from pipeline.resolve.processes import resolving
from pipeline.simulation import ingest_simulated
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, PassageBatch, embedding_city
from synthetic.embedding_city.generator import Progress

DISTRICT = "d1"
#: Time before the first kill, and the factor by which each process gets more time than the one before.
FIRST_KILL_S, TIME_FACTOR = 8.0, 1.5


@dataclass(frozen=True)
class PartialCity(EmbeddingCity):
    """A city of which only these crops have arrived."""

    crops: PassageBatch

    def batches(self, progress: Progress | None = None) -> Iterator[PassageBatch]:
        yield self.crops


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection)


def in_processes(city: EmbeddingCity, processes: int) -> str:
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        ingest_simulated(store, city)
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
    """The digest, and the number of windows written at each kill."""
    windows: list[int] = []
    with home() as folder, Store.open(Settings(home=folder), "benchmark") as store:
        ingest_simulated(store, city)
        while True:
            process = multiprocessing.get_context("spawn").Process(target=resolve_alone, args=(store.settings,))
            process.start()
            process.join(FIRST_KILL_S * TIME_FACTOR ** len(windows))
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
        model = ingest_simulated(store, PartialCity(city.settings, city.plan, first))
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
    arguments = parser.parse_args()
    plan = EmbeddingCitySettings(cameras=arguments.cameras, days=arguments.days, seed=arguments.seed)
    city = embedding_city(plan)
    digests = []

    def report(way: str, found: str) -> None:
        digests.append(found)
        print(f"{found}  {way}", flush=True)

    report("one process", in_processes(city, 1))
    report("four processes", in_processes(city, 4))
    found, windows = killed(city)
    report(f"killed {len(windows)} times, windows written by then: {windows}", found)
    report("shuffled, in two halves", shuffled(city, arguments.seed))
    return int(len(set(digests)) > 1)


if __name__ == "__main__":
    sys.exit(main())
