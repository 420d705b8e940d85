"""Which thresholds a baseline gets: the best of one grid on cities that it is not judged on, the same for all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from pipeline.accuracy.baselines.flat import average_link, nearest_neighbor
from pipeline.accuracy.baselines.online import greedy, micro_batches
from pipeline.accuracy.baselines.passages import Cut, Passages
from pipeline.accuracy.metrics import idf1, pairwise
from schemas.arrays import Ints

#: Cosine distances that are tried.
_DISTANCES = tuple(np.geomspace(0.005, 0.8, 24).round(4).tolist())


@dataclass(frozen=True)
class Baseline:
    prepare: Callable[[Passages], Cut]
    grid: tuple[tuple[float, ...], ...]  # for each threshold what is tried, ascending: the stricter first


BASELINES: Mapping[str, Baseline] = {
    "nearest_neighbor": Baseline(nearest_neighbor, (_DISTANCES,)),
    "average_link": Baseline(average_link, (_DISTANCES,)),
    "greedy": Baseline(greedy, (_DISTANCES,)),
    "micro_batches": Baseline(micro_batches, (_DISTANCES,)),
}


@dataclass(frozen=True)
class LabeledPassages:
    """A validation city."""

    passages: Passages
    truth: Ints  # (n,)
    crops: Ints  # (n,)


@dataclass(frozen=True)
class Chosen:
    thresholds: tuple[float, ...]
    value: float  # of the measure, over all the cities


def search_thresholds(
    baseline: Baseline, cities: Sequence[LabeledPassages], measure: Literal["pairwise_f1", "idf1"] = "pairwise_f1"
) -> Chosen:
    """The thresholds of the baseline's grid that do best at district level over all cities; the strictest of equals."""
    cuts = [baseline.prepare(city.passages) for city in cities]
    truth = np.concatenate([city.truth for city in cities])
    crops = np.concatenate([city.crops for city in cities])
    where = np.repeat(np.arange(len(cities)), [len(city.truth) for city in cities])
    best: Chosen | None = None
    for thresholds in product(*baseline.grid):
        groups = np.concatenate([cut(*thresholds) for cut in cuts])
        if measure == "idf1":
            value = idf1(groups, truth, where, crops)
        else:
            value = pairwise(groups, truth, where).f1
        if best is None or value > best.value:
            best = Chosen(thresholds, value)
    assert best is not None, "a grid has something to try"
    return best
