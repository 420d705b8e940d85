"""What others do in our place, flat over a district: on the same features, under the same gates.

Each baseline takes passages and gives back a function of its thresholds, so that what does not depend on a threshold is
done once. Thresholds are cosine distances; `search_thresholds` chooses them, for all in the same way.

- `nearest_neighbor`: each is linked to the nearest one that is possible, if near enough.
- `average_link`: agglomerative, average linkage (Sokal and Michener 1958), on appearance.
- `greedy`: one passage after the other joins the nearest running identity, or begins one.
- `micro_batches`: HDBSCAN (Campello et al. 2013) in each batch of 5 minutes, and an optimal assignment (Kuhn 1955) of
  its clusters to the running identities, as multi-camera tracking products do.
"""

from pipeline.accuracy.baselines.flat import average_link, nearest_neighbor
from pipeline.accuracy.baselines.online import greedy, micro_batches
from pipeline.accuracy.baselines.passages import Cut, Passages, untimed
from pipeline.accuracy.baselines.search import BASELINES, Baseline, Chosen, LabeledPassages, search_thresholds

__all__ = [
    "BASELINES",
    "Baseline",
    "Chosen",
    "Cut",
    "LabeledPassages",
    "Passages",
    "average_link",
    "greedy",
    "micro_batches",
    "nearest_neighbor",
    "search_thresholds",
    "untimed",
]
