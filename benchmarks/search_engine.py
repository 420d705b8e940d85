"""Search among a million prototypes: the index in memory beside FAISS and pgvector, by recall and time, in one run.

    pip install faiss-cpu
    python -m benchmarks.search_engine [--prototypes 1000000] [--probes 60] [--threads 2] [--no-hnsw] [--no-postgres]

People are simulated (`synthetic.embedding_city`): each has 1 or 3 to 5 prototypes, and half of the probes are another
passage of one of them. The truth of a probe are the ten identities nearest by attended distance, after all prototypes
were compared with it. Each way is asked for ten identities: by cosine alone, and with its 2,000 nearest prototypes
compared by attended distance. `index` is what `pipeline.search` does: it compares all by cosine, 16,000
identities by attended distance, and has distances for all others. recall: share of the true ten among those found.

pgvector stands for the same prototypes in a table of an embedded PostgreSQL: scanned in full, and through HNSW with
iterative scans; one server process answers, and its processor time counts. A last line says how many rows each gives
of a hundred that are asked for with a filter that one row in a thousand passes. faiss-cpu is needed by this benchmark
alone; without it FAISS is left out, with a word.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import pgvector
from pipeline.search.fast_distances import FastDistances
from pipeline.search.nearest import Gallery, Stored
from pipeline.simulation import WEIGHTS
from reid_core.files import load_diff_attention, read_card
from reid_core.serving.local import LocalCore
from schemas.arrays import Floats, Ints, Singles
from schemas.settings import Settings
from synthetic.embedding_city.features import DIMS, draw_person, kinds, retail_0277

_SEED, _TOP, _AGAIN = 17, 10, 2000
#: Prototypes of an identity (a mean, and its medoids where there are several), and how often.
_COUNTS, _SHARES = (1, 3, 4, 5), (0.3, 0.3, 0.2, 0.2)
#: Links of a node, and width while building and searching, of HNSW in FAISS and in pgvector.
_LINKS, _BUILD, _SEARCH = 16, 64, 400


@dataclass(frozen=True)
class People:
    """Simulated identities and probes."""

    v: NDArray[np.float16]  # (p, D)
    counts: Ints  # (n,)
    probes: Floats  # (q, D)

    @property
    def first(self) -> Ints:
        return np.asarray(np.cumsum(self.counts) - self.counts, np.int64)


def simulated_people(prototypes: int, probes: int) -> People:
    model, clothes, rng = retail_0277(), kinds(_SEED), np.random.default_rng(_SEED)
    counts = rng.choice(_COUNTS, int(prototypes / np.dot(_COUNTS, _SHARES)), p=_SHARES)
    known = set(rng.choice(len(counts), probes // 2, replace=False).tolist())
    shifts = rng.standard_normal((3, DIMS), np.float32) * model.camera
    vectors: list[NDArray[np.float16]] = []
    asked: list[Singles] = []
    axes: list[Singles] = []

    def keep() -> None:
        if axes:
            vectors.append(model.features(np.concatenate(axes)).astype(np.float16))
            axes.clear()

    for person, count in enumerate([*counts.tolist(), *[0] * (probes - len(known))]):
        passages = max(int(count) - 1, 1)
        view = np.append(np.arange(passages) % 2, 2)  # the last one is the probe's, by another camera
        seen, _ = model.draw(rng, draw_person(rng, clothes), 3, view, np.ones(passages + 1, np.int64))
        seen += shifts[view]
        if person in known or not count:
            asked.append(seen[-1])
        if count:
            axes.append(seen[:1] if count == 1 else np.concatenate([seen[:-1].mean(axis=0, keepdims=True), seen[:-1]]))
        if len(axes) == 4096:
            keep()
    keep()
    return People(np.concatenate(vectors), counts, model.features(np.stack(asked)).astype(np.float64))


#: Of a probe (D,): the ten identities.
Way = Callable[[Floats], Ints]
#: Of a probe (D,) and a number: rows of so many prototypes, the nearest first.
Near = Callable[[Floats, int], Ints]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototypes", type=int, default=1_000_000)
    parser.add_argument("--probes", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hnsw", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--postgres", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # FastDistances has threads of its own
    people = simulated_people(arguments.prototypes, arguments.probes)
    print(f"{len(people.v):,} prototypes of {len(people.counts):,} identities, {len(people.probes)} probes", flush=True)
    module = load_diff_attention(WEIGHTS, read_card(WEIGHTS))
    fast = FastDistances(module)
    core = LocalCore.open(Settings(home="/nonexistent"), WEIGHTS)
    arms = Arms(people, fast)
    began = time.perf_counter()
    truth = [arms.exact(probe) for probe in people.probes]
    mean_ms = (time.perf_counter() - began) / len(truth) * 1000
    print(f"{'exact scan, attended':<40} recall 1.000  mean {mean_ms:6.0f} ms", flush=True)
    say("index", people, lambda probe: arms.index(core, probe), truth)

    def both(name: str, near: Near, processor_s: Callable[[], float] = lambda: 0.0) -> None:
        say(f"{name}, cosine", people, partial(arms.by_cosine, near), truth, processor_s)
        say(f"{name}, {_AGAIN} again", people, partial(arms.again, near), truth, processor_s)

    for name, near in arms.faiss_ways(arguments.threads, hnsw=arguments.hnsw):
        both(f"FAISS {name}", near)
    if arguments.postgres:
        with pgvector.stored(people.v) as table:
            both("pgvector exact", table.exact, table.processor_s)
            if arguments.hnsw:
                took_s = table.build(_LINKS, _BUILD, _SEARCH, arguments.threads)
                heap, graph = (size / 1e6 for size in table.bytes())
                print(f"pgvector HNSW: built in {took_s:.0f} s; table {heap:.0f} MB, index {graph:.0f} MB", flush=True)
                both("pgvector HNSW", table.hnsw, table.processor_s)
                rows = table.rows_found(people.probes, 10 * _TOP)
                print("filtered, of 100: " + ", ".join(f"{name} {many:.0f}" for name, many in rows.items()), flush=True)


def say(
    name: str,
    people: People,
    way: Way,
    truth: Sequence[Ints],
    processor_s: Callable[[], float] = lambda: 0.0,  # of another process that works for this one
) -> None:
    """Prints a row: recall, and milliseconds of wall and of processor time."""
    way(people.probes[0])
    wall, found = [], []
    worked = time.process_time() + processor_s()
    for probe in people.probes:
        began = time.perf_counter()
        found.append(way(probe))
        wall.append((time.perf_counter() - began) * 1000)
    work = (time.process_time() + processor_s() - worked) / len(found) * 1000
    recall = np.mean([len(np.intersect1d(one, true)) / len(true) for one, true in zip(found, truth, strict=True)])
    p50, p95 = np.percentile(wall, (50, 95))
    print(f"{name:<40} recall {recall:.3f}  p50 {p50:6.0f} ms  p95 {p95:6.0f} ms  processor {work:6.0f} ms", flush=True)


class Arms:
    def __init__(self, people: People, fast: FastDistances) -> None:
        self.people, self.fast = people, fast
        self.owner = np.repeat(np.arange(len(people.counts)), people.counts)
        lengths = np.concatenate(
            [np.linalg.norm(part.astype(np.float32), axis=1) for part in np.array_split(people.v, 64)]
        )
        self.inverse: Singles = (1 / lengths).astype(np.float32)
        stored = Stored(people.v, self.inverse, people.first, fast)
        every = np.arange(len(people.counts))
        self.gallery = Gallery.of(stored, every, people.counts, every)

    def exact(self, probe: Floats) -> Ints:
        distance = self.fast.distances(probe, self.people.v, np.arange(len(self.people.v)))
        return np.argsort(np.minimum.reduceat(distance, self.people.first))[:_TOP]

    def index(self, core: Any, probe: Floats) -> Ints:
        return np.argsort(self.gallery.compare(core, probe).distance)[:_TOP]

    def by_cosine(self, near: Near, probe: Floats) -> Ints:
        return self._first_ten(self.owner[near(probe, 10 * _TOP)])

    def again(self, near: Near, probe: Floats) -> Ints:
        rows = near(probe, _AGAIN)
        return self._first_ten(self.owner[rows[np.argsort(self.fast.distances(probe, self.people.v, rows))]])

    def _first_ten(self, owners: Ints) -> Ints:
        _, at = np.unique(owners, return_index=True)
        return owners[np.sort(at)[:_TOP]]

    def faiss_ways(self, threads: int, *, hnsw: bool) -> Iterator[tuple[str, Near]]:
        """FAISS's indexes, one built after another; none where faiss-cpu is not installed."""
        try:
            faiss: Any = import_module("faiss")
        except ImportError:
            print("FAISS is left out: `pip install faiss-cpu` brings it", flush=True)
            return
        faiss.omp_set_num_threads(threads)
        made: dict[str, Callable[[], Any]] = {"flat": lambda: faiss.IndexFlatIP(DIMS)}
        if hnsw:
            made["HNSW"] = lambda: faiss.IndexHNSWFlat(DIMS, _LINKS, faiss.METRIC_INNER_PRODUCT)
        for name, make in made.items():
            index, began = make(), time.perf_counter()
            if name == "HNSW":
                index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD, _SEARCH
            for start in range(0, len(self.people.v), 50_000):
                rows = slice(start, start + 50_000)
                index.add(self.people.v[rows].astype(np.float32) * self.inverse[rows, None])
            print(f"FAISS {name}: built in {time.perf_counter() - began:.0f} s", flush=True)
            yield name, partial(_near, index)


def _near(index: Any, probe: Floats, count: int) -> Ints:
    unit = np.asarray(probe / np.linalg.norm(probe), np.float32)
    rows = index.search(unit[None], count)[1][0]
    return np.asarray(rows[rows >= 0], np.int64)


if __name__ == "__main__":
    main()
