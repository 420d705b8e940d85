"""What a probe's distances, time and place say: log likelihood ratios, the probe's person against a stranger.

The same distance means less for a blurred or occluded probe, or in another place, because all distances are smaller or
larger there. So each distance is standardized by the probe's own distances to everybody compared, most of whom are
strangers (test normalization; Auckenthaler et al. 2000). An identity's distance is the smallest over its prototypes and
is smaller by chance where there are more of them: each identity is standardized by those that have as many, and the
terms depend on their number.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.search.transit import Transit
from schemas.arrays import Floats, Ints
from schemas.calibration import SearchCalibration

#: Bins of `DistanceCounts` over the distances 0 to 2.
_BINS = 2000
_WIDTH = 2.0 / _BINS
#: Few distances say little about a probe's strangers: the usual center and spread count like this many more.
_CENTER_WEIGHT, _SPREAD_WEIGHT = 5.0, 100.0
#: Those of all identities count like this many more for the identities with one number of prototypes.
_ALL_WEIGHT = 30.0
#: Quantiles of a normal distribution one standard deviation from its center.
_ONE_DEVIATION = (0.158655, 0.841345)


@dataclass(frozen=True)
class DistanceCounts:
    """Counts of one probe's distances in bins. Those of several parts of a city add up to those of the whole."""

    counts: Floats  # (most prototypes + 1, _BINS) by number of prototypes

    @classmethod
    def of(cls, distance: Floats, vectors: Ints, weight: float = 1.0) -> "DistanceCounts":
        """distance: (n,) 0 to 2. vectors: (n,) number of prototypes. weight: identities that each stands for."""
        rows = int(vectors.max(initial=0)) + 1
        place = vectors * _BINS + (distance / _WIDTH).astype(np.int64).clip(0, _BINS - 1)
        counts = np.bincount(place, minlength=rows * _BINS).reshape(rows, _BINS)
        return cls(np.asarray(counts * weight, np.float64))

    def __add__(self, other: "DistanceCounts") -> "DistanceCounts":
        rows = max(len(self.counts), len(other.counts))
        padded = [np.pad(part.counts, ((0, rows - len(part.counts)), (0, 0))) for part in (self, other)]
        return DistanceCounts(padded[0] + padded[1])


@dataclass(frozen=True)
class Reference:
    """Where the distances between one probe and strangers lie."""

    center: float  # of all identities
    spread: float
    centers: tuple[float, ...]  # of those with 0, 1, 2, ... prototypes
    spreads: tuple[float, ...]

    @classmethod
    def of(cls, counts: DistanceCounts, calibration: SearchCalibration | None = None) -> "Reference":
        """The median and half the distance between the 16 % and 84 % quantiles, which a few of one person hardly move.

        calibration: its usual values count where there are few distances; None counts only the distances.
        """
        n = float(counts.counts.sum())
        center, spread = _center_and_spread(counts.counts.sum(axis=0))
        if calibration is not None:
            center = (n * center + _CENTER_WEIGHT * calibration.center) / (n + _CENTER_WEIGHT)
            spread = (n * spread + _SPREAD_WEIGHT * calibration.spread) / (n + _SPREAD_WEIGHT)
        centers, spreads = [], []
        for row in counts.counts:
            share = row.sum() / (row.sum() + _ALL_WEIGHT)
            own = _center_and_spread(row)
            centers.append(share * own[0] + (1 - share) * center)
            spreads.append(max(share * own[1] + (1 - share) * spread, _WIDTH))
        return cls(center, max(spread, _WIDTH), tuple(centers), tuple(spreads))

    def standardized(self, distance: Floats, vectors: Ints) -> Floats:
        """(n,) z of the distances (n,) of identities with these numbers of prototypes (n,)."""
        known = vectors.clip(0, len(self.centers) - 1)
        return np.asarray((distance - np.array(self.centers)[known]) / np.array(self.spreads)[known], np.float64)


def _center_and_spread(counts: Floats) -> tuple[float, float]:
    """Median, and half the distance between the quantiles one deviation away, of counts (_BINS,) of distances."""
    below = np.concatenate([[0.0], np.cumsum(counts)])
    edges = np.arange(_BINS + 1) * _WIDTH
    center, low, high = (float(np.interp(share * below[-1], below, edges)) for share in (0.5, *_ONE_DEVIATION))
    return center, (high - low) / 2


def look_ratios(calibration: SearchCalibration, standardized: Floats, vectors: Ints) -> Floats:
    """(n,) log p(z | the probe's person) / p(z | a stranger), the nearer the larger.

    standardized: (n,) z by `Reference.standardized`. vectors: (n,) number of prototypes of each identity.
    """
    pieces = distance_pieces(standardized.clip(*calibration.learned), calibration.knots)
    terms = calibration.terms
    return np.asarray(
        terms.intercept - pieces @ np.array(terms.slopes) - calibration.vectors * np.log(vectors), np.float64
    )


def log_ratios(calibration: SearchCalibration, look: Floats, transit: Transit) -> Floats:
    """(n,) The same of look, time and place together; -inf for what is impossible. look: (n,) by `look_ratios`."""
    return np.where(transit.impossible, -np.inf, look + calibration.transit * transit.log_odds)


def distance_pieces(standardized: Floats, knots: tuple[float, ...]) -> Floats:
    """(n, len(knots) + 1) Part of each z between 0 and z that lies in each piece between the knots, with its sign."""
    edges = np.array([-np.inf, *knots, np.inf])
    return np.asarray(
        np.clip(standardized[:, None], edges[:-1], edges[1:]) - np.clip(0.0, edges[:-1], edges[1:]), np.float64
    )
