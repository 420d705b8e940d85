"""Chooses the baselines' thresholds on cities that they are not judged on, in the same way for all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.accuracy.baselines.flat import average_link, nearest_neighbor, nearest_neighbor_by_unit
from pipeline.accuracy.baselines.online import greedy, micro_batches
from pipeline.accuracy.baselines.passages import Cut, Passages
from pipeline.accuracy.labeled import Labeled
from pipeline.accuracy.metrics import Pairwise, idf1, pairwise
from schemas.arrays import Ints
from schemas.levels import UPWARD, Level

#: Thresholds to try, cosine distances, ascending: the strictest first.
THRESHOLDS = tuple(np.geomspace(0.005, 0.8, 24).round(4).tolist())
#: The same for `nearest_neighbor_distances`.
_UNIT_THRESHOLDS = tuple(np.geomspace(0.002, 0.6, 60).round(5).tolist())

BASELINES: Mapping[str, Callable[[Passages], Cut]] = {
    "nearest_neighbor": nearest_neighbor,
    "average_link": average_link,
    "greedy": greedy,
    "micro_batches": micro_batches,
}


@dataclass(frozen=True)
class LabeledPassages:
    """The n passages of a validation city."""

    passages: Passages
    truth: Ints  # (n,) person
    crops: Ints  # (n,) number of crops


@dataclass(frozen=True)
class Chosen:
    threshold: float
    idf1: float  # over all cities


def search_threshold(
    baseline: Callable[[Passages], Cut], cities: Sequence[LabeledPassages], thresholds: Sequence[float] = THRESHOLDS
) -> Chosen:
    """The threshold with the best IDF1 of the baseline over all cities; of equals the first."""
    cuts = [baseline(city.passages) for city in cities]
    truth = np.concatenate([city.truth for city in cities])
    crops = np.concatenate([city.crops for city in cities])
    city_of = np.repeat(np.arange(len(cities)), [len(city.truth) for city in cities])
    best: Chosen | None = None
    for threshold in thresholds:
        value = idf1(np.concatenate([cut(threshold) for cut in cuts]), truth, city_of, crops)
        if best is None or value > best.idf1:
            best = Chosen(threshold, value)
    assert best is not None, "no threshold to try"
    return best


def nearest_neighbor_distances(cities: Sequence[Labeled]) -> dict[Level, float]:
    """Per level above the camera: the threshold of `nearest_neighbor_by_unit` with the best pairwise F1 on the cities.

    Of equals the strictest.
    """
    best: dict[Level, float] = {}
    for level in UPWARD[1:]:
        units = [labeled.unit(level) for labeled in cities]
        cuts = [nearest_neighbor_by_unit(labeled.mean, unit) for labeled, unit in zip(cities, units, strict=True)]
        scores = []
        for threshold in _UNIT_THRESHOLDS:
            total = Pairwise(0, 0, 0)
            for labeled, unit, cut in zip(cities, units, cuts, strict=True):
                predicted, truth = (labeled.episodes(level, groups) for groups in (cut(threshold), labeled.truth))
                total += pairwise(predicted, truth, unit)
            scores.append((total.f1, -threshold))
        best[level] = -max(scores)[1]
    return best
