"""The flat methods with the thresholds that do best on the very city that they are judged on.

    urban-reid simulate --cameras 1000 --resolve
    python benchmarks/thresholds.py --methods nearest_neighbor,greedy [--grid 0.02,0.03,0.05]

What a threshold chosen at this size would buy them at most; ours keeps what it got from smaller cities. The home is
that of the settings, as `urban-reid simulate` left it. A line as each threshold is done: IDF1 by level, seconds.
"""

import argparse
import time
from collections.abc import Sequence

from pipeline.accuracy.baselines import BASELINES, Passages
from pipeline.accuracy.labeled import Labeled, labeled_tracklets
from pipeline.accuracy.metrics import idf1
from pipeline.association.geometry import geometry
from pipeline.city.units import read_city
from pipeline.registry import model_in_use
from pipeline.simulation import passages_of
from pipeline.store import Store
from schemas.levels import UPWARD
from schemas.settings import settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(BASELINES))
    parser.add_argument("--grid", help="cosine distances; without, those that the packaged thresholds were chosen from")
    parser.add_argument("--district", default="d1")
    asked = parser.parse_args()
    with Store.open(settings(), "benchmark") as store:
        with store.begin() as connection:
            model = model_in_use(connection)
        labeled = labeled_tracklets(store, asked.district, model.id)
        passages = passages_of(labeled, geometry(read_city(store), asked.district, store.settings.association))
    for method in asked.methods.split(","):
        grid = BASELINES[method].grid[0]
        sweep(method, passages, labeled, [float(one) for one in asked.grid.split(",")] if asked.grid else grid)


def sweep(method: str, passages: Passages, labeled: Labeled, grid: Sequence[float]) -> None:
    began = time.perf_counter()
    cut = BASELINES[method].prepare(passages)
    print(f"{method}: {time.perf_counter() - began:.1f} s before the first cut", flush=True)
    for most in grid:
        began = time.perf_counter()
        groups = cut(most)
        seconds = time.perf_counter() - began
        cells = []
        for level in UPWARD[1:]:
            found, truth = labeled.of_task(level, groups), labeled.of_task(level, labeled.truth)
            cells.append(f"{idf1(found, truth, labeled.unit(level), labeled.crops):.3f}")
        print(f"{method} {most}: {' / '.join(cells)} in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
