"""Baseline methods, flat over a district, on the same features and with the same gates.

Each baseline takes passages and returns a function of its threshold, so that the part without it is done once.
Thresholds are cosine distances; `search_threshold` chooses them in the same way for all baselines.

- `nearest_neighbor`: links each passage to its nearest possible one, if that is near enough.
- `average_link`: agglomerative clustering of appearance with average linkage (Sokal and Michener 1958).
- `greedy`: one passage after the other joins the nearest running identity, or starts one.
- `micro_batches`: HDBSCAN (Campello et al. 2013) in each batch of 5 minutes, then an optimal assignment (Kuhn 1955) of
  the clusters to running identities, as in multi-camera tracking products.
"""

from pipeline.accuracy.baselines.flat import average_link, nearest_neighbor, nearest_neighbor_by_unit
from pipeline.accuracy.baselines.online import greedy, micro_batches
from pipeline.accuracy.baselines.passages import Cut, Passages
from pipeline.accuracy.baselines.search import (
    BASELINES,
    THRESHOLDS,
    Chosen,
    LabeledPassages,
    nearest_neighbor_distances,
    search_threshold,
)

__all__ = [
    "BASELINES",
    "THRESHOLDS",
    "Chosen",
    "Cut",
    "LabeledPassages",
    "Passages",
    "average_link",
    "greedy",
    "micro_batches",
    "nearest_neighbor",
    "nearest_neighbor_by_unit",
    "nearest_neighbor_distances",
    "search_threshold",
]
