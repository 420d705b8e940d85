"""Verification, whether two pictures show one person: TPR at FPR, the operating point, and calibration.

The pairs are the query-gallery pairs that ranking compares. Distances are counted in narrow bins, so that memory does
not grow with the number of pairs; a threshold is exact to the width of a bin, 2 / 65,536.

Fitting and judging use different people. Sorted identities belong to two halves in turn. Thresholds and curves are
fitted on pairs within the first half and judged on pairs within the second; pairs between the halves are not used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from reid_core.datasets.person_pictures import JUNK
from schemas.arrays import Floats, Ints
from schemas.cards import OperatingPoint

#: Bins of a distance's range, 0..2.
BINS = 2**16
WIDTH = 2 / BINS
#: Groups of pairs in `PairCounts.counts`: both people of the first half, both of the second. Group 2: one of each.
FIT, JUDGE = 0, 1
FPRS = (1e-1, 1e-2, 1e-3, 1e-4)
#: Fewest false positives from which a false positive rate is stated.
_FALSE_POSITIVES = 5


@dataclass
class PairCounts:
    """Histograms of the distances of pairs of one person and of two people, within and between the two halves."""

    gallery_identities: Ints  # (G,)
    gallery_cameras: Ints  # (G,)
    people: Ints  # (P,), all identities, sorted
    # (3, 2, BINS + 1): group, [two people, one person], bin; bin i counts distances from (i - 1) to i widths
    counts: Ints = field(default_factory=lambda: np.zeros((3, 2, BINS + 1), np.int64), init=False)

    def update(self, distances: NDArray[np.floating], identities: Ints, cameras: Ints) -> None:
        """Adds q queries: `distances` (q, G) in 0..2, `identities` and `cameras` (q,)."""
        same = identities[:, None] == self.gallery_identities  # (q, G)
        left, right = self._half(identities)[:, None], self._half(self.gallery_identities)
        place = np.where(left == right, left, np.int32(2))
        place *= 2
        place += same
        place *= BINS + 1
        place += np.ceil(distances / WIDTH).clip(0, BINS).astype(np.int32)
        ignored = same & (cameras[:, None] == self.gallery_cameras)
        ignored |= self.gallery_identities == JUNK
        ignored |= (identities == JUNK)[:, None]
        place[ignored] = self.counts.size
        found = np.bincount(place.ravel(), minlength=self.counts.size + 1)[:-1]
        self.counts += found.reshape(self.counts.shape)

    def _half(self, identities: Ints) -> NDArray[np.int32]:
        return (np.searchsorted(self.people, identities) % 2).astype(np.int32)


class RatePoint(NamedTuple):
    """Rates where pairs up to `threshold` count as one person: of pairs of two people (fpr) and of one (tpr)."""

    threshold: float
    fpr: float
    tpr: float


def tpr_at_fpr(counts: Ints, fprs: Sequence[float] = FPRS) -> dict[float, RatePoint]:
    """For each rate, the largest threshold up to which at most that share of the pairs of two people lies.

    counts: (2, BINS + 1), pairs of two people and of one. A rate is left out where it stands for fewer than 5 pairs of
    two people; all are left out where there is no pair of one person.
    """
    two, one = counts.cumsum(1)
    found = {}
    for fpr in fprs:
        if two[-1] * fpr < _FALSE_POSITIVES or not one[-1]:
            continue
        # Bin 0 counts equal features: where these alone are too many, the threshold is below 0 and no pair is taken.
        last = int(np.searchsorted(two, two[-1] * fpr, side="right")) - 1
        taken = (two[last] / two[-1], one[last] / one[-1]) if last >= 0 else (0.0, 0.0)
        found[fpr] = RatePoint(last * WIDTH, float(taken[0]), float(taken[1]))
    return found


def operating_point(pairs: PairCounts, distances: str, measured_on: str, fpr: float = 1e-3) -> OperatingPoint | None:
    """The threshold for a false positive rate, set on the first half of the people, with the rates of the second half.

    distances: "plain" or "attended". None where a half has too few pairs for this rate (see `tpr_at_fpr`).
    """
    assert distances == "plain" or distances == "attended"
    fitted = tpr_at_fpr(pairs.counts[FIT], [fpr]).get(fpr)
    judges = pairs.counts[JUDGE]
    many_two, many_one = (int(many) for many in judges.sum(1))
    if fitted is None or fitted.threshold < 0 or not many_two or not many_one:
        return None
    last = round(fitted.threshold / WIDTH)
    two, one = judges[:, : last + 1].sum(1)
    return OperatingPoint(
        distances=distances,
        threshold=fitted.threshold,
        asked_fpr=fpr,
        fpr=float(two / many_two),
        tpr=float(one / many_one),
        measured_on=measured_on[:500],
        pairs=many_two + many_one,
        positives=many_one,
    )


@dataclass(frozen=True)
class CalibrationCurve:
    """log-odds(one person) = intercept - slope * distance, fitted on the first half of the people.

    Pairs of one person and of two weigh equally; for another share p of pairs of one person, add log(p / (1 - p)) to
    the log-odds. `predicted`, `observed` and `ece` are measured on the second half, in bins of equal mass.
    """

    slope: float
    intercept: float
    predicted: Floats  # (B,), mean probability of each bin
    observed: Floats  # (B,), share of pairs of one person in each bin
    ece: float  # expected calibration error: mean |predicted - observed|, by mass


def calibration_curve(pairs: PairCounts, bins: int = 15) -> CalibrationCurve | None:
    """Fits the curve and measures its calibration error (Guo et al. 2017); None where a half lacks one kind of pair.

    All pairs of one person together weigh as much as all pairs of two people. Unweighted, about one pair in a thousand
    is of one person, and nearly all probabilities would be 0.
    """
    if not pairs.counts[:2].sum(2).all():
        return None
    distance = (np.arange(BINS + 1) - 0.5).clip(0) * WIDTH
    fitted = pairs.counts[FIT] / pairs.counts[FIT].sum(1, keepdims=True)  # (2, BINS + 1)
    label, seen = np.nonzero(fitted)
    weight = fitted[label, seen] * pairs.counts[FIT].sum() / 2
    slope, intercept = logistic(distance[seen], label == 1, weight)
    judged = pairs.counts[JUDGE] / pairs.counts[JUDGE].sum(1, keepdims=True) / 2
    mass = judged.sum(0)
    probability = expit(intercept - slope * distance)
    place = np.minimum(((mass.cumsum() - mass / 2) * bins).astype(np.int64), bins - 1)
    total = np.bincount(place, mass, bins)
    held = total > 0
    predicted = np.bincount(place, mass * probability, bins)[held] / total[held]
    observed = np.bincount(place, judged[1], bins)[held] / total[held]
    ece = float(np.sum(total[held] * np.abs(predicted - observed)))
    return CalibrationCurve(slope, intercept, predicted, observed, ece)


def logistic(distance: Floats, same: NDArray[np.bool_], weight: Floats | None = None) -> tuple[float, float]:
    """(slope, intercept) of log-odds = intercept - slope * distance, by maximum likelihood; the slope is positive.

    All arguments are (n,); `weight` is the number of pairs that each distance stands for.
    """
    many = np.ones(len(distance)) if weight is None else weight
    center = np.average(distance, weights=many)
    scale = np.sqrt(np.average((distance - center) ** 2, weights=many)) or 1.0
    x, y = (distance - center) / scale, same.astype(float)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        steepness, at_center = parameters
        odds = at_center - steepness * x
        excess = many * (expit(odds) - y)
        # Without the small penalty, data that a threshold separates perfectly would give an infinite slope.
        value = np.sum(many * (np.logaddexp(0, odds) - y * odds)) + 0.05 * steepness**2
        return float(value), np.array([-np.sum(excess * x) + 0.1 * steepness, np.sum(excess)])

    bounds = [(1e-3, None), (None, None)]  # a larger distance never makes the same person more likely
    steepness, at_center = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds).x
    slope = float(steepness / scale)
    return slope, float(at_center + slope * center)
