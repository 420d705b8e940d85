"""The baselines with the threshold that is best on the very city they are judged on.

    urban-reid simulate --cameras 1000 --resolve
    python -m benchmarks.thresholds --methods nearest_neighbor,greedy [--grid 0.02,0.03,0.05]

The upper bound of what a threshold chosen at this size would give them; urban-reid keeps its operating points from
smaller cities. Uses the city that `urban-reid simulate` left in the data directory of the settings. Prints for each
threshold: IDF1 by level, seconds.
"""

import argparse
import time
from collections.abc import Sequence

from pipeline.accuracy.baselines import BASELINES, THRESHOLDS, Passages
from pipeline.accuracy.labeled import Labeled, labeled_tracklets
from pipeline.accuracy.metrics import idf1
from pipeline.association.geometry import unit_geometry
from pipeline.city.units import read_city
from pipeline.registry import model_in_use
from pipeline.simulation import passages_of
from pipeline.store import Store
from schemas.levels import UPWARD
from schemas.settings import settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(BASELINES))
    parser.add_argument("--grid", help="cosine distances; default: those that the packaged thresholds were chosen from")
    parser.add_argument("--district", default="d1")
    arguments = parser.parse_args()
    with Store.open(settings(), "benchmark") as store:
        with store.begin() as connection:
            model = model_in_use(connection)
        labeled = labeled_tracklets(store, arguments.district, model.id)
        geometry = unit_geometry(read_city(store), arguments.district, store.settings.association)
    grid = [float(value) for value in arguments.grid.split(",")] if arguments.grid else THRESHOLDS
    for method in arguments.methods.split(","):
        sweep(method, passages_of(labeled, geometry), labeled, grid)


def sweep(method: str, passages: Passages, labeled: Labeled, grid: Sequence[float]) -> None:
    began = time.perf_counter()
    cut = BASELINES[method](passages)
    print(f"{method}: {time.perf_counter() - began:.1f} s before the first cut", flush=True)
    for threshold in grid:
        began = time.perf_counter()
        groups = cut(threshold)
        seconds = time.perf_counter() - began
        cells = []
        for level in UPWARD[1:]:
            predicted, truth = labeled.episodes(level, groups), labeled.episodes(level, labeled.truth)
            cells.append(f"{idf1(predicted, truth, labeled.unit(level), labeled.crops):.3f}")
        print(f"{method} {threshold}: {' / '.join(cells)} in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
