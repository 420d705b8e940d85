"""What the distances of one probe say: the log likelihood ratio of each, the probe's person against a stranger.

The same distance means less for a blurred or occluded probe, or in another place, because all distances are smaller or
larger there. So each distance is standardized by the probe's own distances to everybody compared, most of whom are
strangers (test normalization; Auckenthaler et al. 2000). An identity's distance is the smallest over its prototypes and
is smaller by chance where there are more of them: the terms depend on their number.
"""

from dataclasses import dataclass

import numpy as np

from schemas.arrays import Floats, Ints
from schemas.calibration import SearchCalibration

#: Bins of `DistanceCounts` over the distances 0 to 2.
_BINS = 2000
_WIDTH = 2.0 / _BINS
#: Few distances say little about a probe's strangers: the usual center and spread count like this many more.
_CENTER_WEIGHT, _SPREAD_WEIGHT = 5.0, 100.0
#: Quantiles of a normal distribution one standard deviation from its center.
_ONE_DEVIATION = (0.158655, 0.841345)


@dataclass(frozen=True)
class DistanceCounts:
    """Counts of one probe's distances in bins. Those of several parts of a city add up to those of the whole."""

    counts: Ints  # (_BINS,)

    @classmethod
    def of(cls, distance: Floats) -> "DistanceCounts":
        """distance: (n,) 0 to 2."""
        return cls(np.bincount((distance / _WIDTH).astype(np.int64).clip(0, _BINS - 1), minlength=_BINS))

    def __add__(self, other: "DistanceCounts") -> "DistanceCounts":
        return DistanceCounts(self.counts + other.counts)

    def quantile(self, share: float) -> float:
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(share * below[-1], below, np.arange(_BINS + 1) * _WIDTH))


@dataclass(frozen=True)
class Reference:
    """Where the distances between one probe and strangers lie."""

    center: float
    spread: float

    @classmethod
    def of(cls, counts: DistanceCounts, calibration: SearchCalibration | None = None) -> "Reference":
        """The median and half the distance between the 16 % and 84 % quantiles, which a few of one person hardly move.

        calibration: its usual values count where there are few distances; None counts only the distances.
        """
        n = float(counts.counts.sum())
        center = counts.quantile(0.5)
        low, high = (counts.quantile(share) for share in _ONE_DEVIATION)
        spread = (high - low) / 2
        if calibration is not None:
            center = (n * center + _CENTER_WEIGHT * calibration.center) / (n + _CENTER_WEIGHT)
            spread = (n * spread + _SPREAD_WEIGHT * calibration.spread) / (n + _SPREAD_WEIGHT)
        return cls(center, max(spread, _WIDTH))

    def standardized(self, distance: Floats) -> Floats:
        return (distance - self.center) / self.spread


def log_ratios(calibration: SearchCalibration, standardized: Floats, vectors: Ints) -> Floats:
    """(n,) log p(z | the probe's person) / p(z | a stranger), the nearer the larger.

    standardized: (n,) z by `Reference.standardized`. vectors: (n,) number of prototypes of each identity.
    """
    pieces = distance_pieces(standardized.clip(*calibration.learned), calibration.knots)
    terms = calibration.terms
    return np.asarray(
        terms.intercept - pieces @ np.array(terms.slopes) - calibration.vectors * np.log(vectors), np.float64
    )


def distance_pieces(standardized: Floats, knots: tuple[float, ...]) -> Floats:
    """(n, len(knots) + 1) Part of each z between 0 and z that lies in each piece between the knots, with its sign."""
    edges = np.array([-np.inf, *knots, np.inf])
    return np.asarray(
        np.clip(standardized[:, None], edges[:-1], edges[1:]) - np.clip(0.0, edges[:-1], edges[1:]), np.float64
    )
