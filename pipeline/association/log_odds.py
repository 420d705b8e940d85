"""Calibrated log-odds that two identities are one person, from attended distance, transit time and number of crops.

The mean of many crops lies closer to every other mean than a single crop does, and closest to a mean of the same
person. The same distance therefore means different things for few and for many crops: intercept and slopes are
interpolated between the two extremes of `PairTerms` by `few_crops_share`. `calibration.pairs` fits the terms.
"""

import math

import numpy as np

from schemas.arrays import Bools, Floats
from schemas.calibration import LevelCalibration, PairTerms


def log_odds(terms: PairTerms, distance: Floats, transit: Floats, left_weight: Floats, right_weight: Floats) -> Floats:
    """(p,) Log-odds of p pairs.

    distance: (p,) attended distance. transit: (p,) transit log-odds, 0 where the times say nothing. left_weight,
    right_weight: (p,) weights of the two prototypes, each the sum of the qualities of its crops.
    """
    share = few_crops_share(left_weight, right_weight)
    pieces = distance_pieces(distance, terms.knots)  # (p, pieces)
    many_crops = terms.many_crops.intercept - pieces @ np.array(terms.many_crops.slopes)
    few_crops = terms.few_crops.intercept - pieces @ np.array(terms.few_crops.slopes)
    return np.asarray((1 - share) * many_crops + share * few_crops + terms.transit * transit, np.float64)


def learned_part(calibration: LevelCalibration, distance: Floats) -> tuple[Floats, Bools]:
    """Each distance or, outside those that the calibration was learned on, their nearer end; and whether it is outside.

    A calibration says nothing about distances that it has not seen, so such pairs are not joined, whatever the line
    through the others says there. Without a known range all are inside (see docs/decisions/learned-range.md).
    """
    if calibration.learned is None:
        return distance, np.zeros(len(distance), dtype=bool)
    within = distance.clip(*calibration.learned)
    return within, within != distance


def appearance_log_odds(
    terms: PairTerms, distance: float, left_weight: float = 1.0, right_weight: float = 1.0
) -> float:
    """Log-odds of one pair from its distance alone."""
    columns = (np.array([value]) for value in (distance, 0.0, left_weight, right_weight))
    return float(log_odds(terms, *columns)[0])


def probability(log_odds: float) -> float:
    """The probability, 0..1, of these log-odds; never overflows."""
    return 0.5 + 0.5 * math.tanh(log_odds / 2)


def distance_at(terms: PairTerms, log_odds: float, left_weight: float = 1.0, right_weight: float = 1.0) -> float:
    """The distance that alone gives these log-odds: the inverse of `appearance_log_odds`. Negative where none does."""
    share = float(few_crops_share(np.array([left_weight]), np.array([right_weight]))[0])
    drop = (1 - share) * terms.many_crops.intercept + share * terms.few_crops.intercept - log_odds
    knots = (*terms.knots, np.inf)
    start = 0.0
    for end, many_crops, few_crops in zip(knots, terms.many_crops.slopes, terms.few_crops.slopes, strict=True):
        slope = (1 - share) * many_crops + share * few_crops
        if drop <= slope * (end - start):
            return start + drop / slope
        drop -= slope * (end - start)
        start = end
    raise AssertionError("the last piece has no end")


def few_crops_share(left_weight: Floats, right_weight: Floats) -> Floats:
    """(p,) Share of `PairTerms.few_crops` in the interpolation, 0 to 1.

    The mean of 1 / (1 + weight) of both sides, since the variance of a mean falls with one over its weight.
    """
    return np.asarray((1 / (1 + left_weight) + 1 / (1 + right_weight)) / 2, np.float64)


def distance_pieces(distance: Floats, knots: tuple[float, ...]) -> Floats:
    """(p, len(knots) + 1) Part of each distance that lies in each piece between the knots."""
    edges = np.array([0.0, *knots, np.inf])
    return np.asarray(np.clip(distance[:, None] - edges[:-1], 0, np.diff(edges)), np.float64)
