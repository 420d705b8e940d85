"""Transit times: how much the time between two sightings speaks for one person.

A histogram of the gaps of earlier joins on a route (pair of child units), smoothed towards all routes of the unit,
against the gaps of strangers, which are spread evenly over the horizon. Where nothing was joined yet it says nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.association.nodes import Floats, Ints
from schemas.keys import content_hash

#: Edges of the gaps' bins, seconds; roughly doubling, since a longer way varies more. A gap below 0 is an overlap.
EDGES_S = np.array([0, 3, 6, 12, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 86400.0])
BINS = len(EDGES_S) + 1
#: Pulls a route with few joins towards the unit's other routes, and those towards strangers.
PSEUDO_COUNT = 8.0
#: No transit time may speak louder than this, either way.
MOST = 2.0


@dataclass(frozen=True)
class TransitModel:
    counts: Ints  # (c, c, BINS) earlier joins, both ways counted in both cells
    horizon_s: float

    def log_odds(self, left_child: Ints, right_child: Ints, gap_s: Floats) -> Floats:
        """(p,) log p(gap | one person) / p(gap | strangers), within +-MOST."""
        strangers = self._strangers()
        pooled = self.counts.sum(axis=(0, 1)) / 2
        everywhere = (pooled + PSEUDO_COUNT * strangers) / (pooled.sum() + PSEUDO_COUNT)
        route = self.counts[left_child, right_child]  # (p, BINS)
        same = (route + PSEUDO_COUNT * everywhere) / (route.sum(axis=1, keepdims=True) + PSEUDO_COUNT)
        bins = np.digitize(gap_s, EDGES_S)
        ratio = np.log(same[np.arange(len(bins)), bins] / strangers[bins])
        return np.asarray(np.clip(ratio, -MOST, MOST), dtype=np.float64)

    def _strangers(self) -> Floats:
        """(BINS,) share of strangers' gaps in each bin: even over the horizon, and no bin empty."""
        end = max(min(self.horizon_s, float(EDGES_S[-1])), 60.0)
        edges = np.concatenate([[-10.0], np.minimum(EDGES_S, end), [end + 1.0]])
        share = np.maximum(np.diff(edges), 0.5)
        return np.asarray(share / share.sum(), dtype=np.float64)

    def digest(self) -> bytes:
        return content_hash("transit", (self.counts.astype(">i8").tobytes(), str(self.horizon_s)))


def fit(children: int, joins: Iterable[tuple[int, int, int, int]], horizon_s: float) -> TransitModel:
    """From (left child, right child, bin of EDGES_S, how many) of earlier joins."""
    counts = np.zeros((children, children, BINS), dtype=np.int64)
    for left, right, position, many in joins:
        counts[left, right, position] += many
        counts[right, left, position] += many
    return TransitModel(counts, horizon_s)
