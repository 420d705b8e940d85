"""Calibrated log-odds that two identities are one person, from attended distance, transit time and weight of evidence.

A mean of many crops lies nearer to every other mean than a single crop does, most of all to one of the same person. So
the same distance means different things for few and for many crops: intercept and slopes are interpolated between the
two extremes by `thinness`. `calibration.pairs` fits the terms.
"""

import numpy as np

from schemas.arrays import Floats
from schemas.calibration import PairTerms


def log_odds(terms: PairTerms, distance: Floats, transit: Floats, left_weight: Floats, right_weight: Floats) -> Floats:
    """(p,) of pairs: attended distance, log-odds of the transit times (0 where they say nothing), and the weight of
    either side's prototype, a sum of crops' qualities.
    """
    thin = thinness(left_weight, right_weight)
    pieces = pieces_of(distance, terms.knots)  # (p, pieces)
    thick = terms.thick.intercept - pieces @ np.array(terms.thick.slopes)
    thinner = terms.thin.intercept - pieces @ np.array(terms.thin.slopes)
    return np.asarray((1 - thin) * thick + thin * thinner + terms.transit * transit, np.float64)


def appearance_log_odds(
    terms: PairTerms, distance: float, left_weight: float = 1.0, right_weight: float = 1.0
) -> float:
    """Of one pair, by its distance alone."""
    columns = (np.array([value]) for value in (distance, 0.0, left_weight, right_weight))
    return float(log_odds(terms, *columns)[0])


def distance_at(terms: PairTerms, odds: float, left_weight: float = 1.0, right_weight: float = 1.0) -> float:
    """The distance that alone gives these log-odds; below 0 where none does."""
    thin = float(thinness(np.array([left_weight]), np.array([right_weight]))[0])
    left = (1 - thin) * terms.thick.intercept + thin * terms.thin.intercept - odds
    at = 0.0
    for upper, thick, thinner in zip((*terms.knots, np.inf), terms.thick.slopes, terms.thin.slopes, strict=True):
        slope = (1 - thin) * thick + thin * thinner
        if left <= slope * (upper - at):
            return at + left / slope
        left -= slope * (upper - at)
        at = upper
    raise AssertionError("the last piece has no end")


def thinness(left_weight: Floats, right_weight: Floats) -> Floats:
    """(p,) 0 .. 1: how little a pair rests on. The noise of a mean falls with one over its weight."""
    return np.asarray((1 / (1 + left_weight) + 1 / (1 + right_weight)) / 2, np.float64)


def pieces_of(distance: Floats, knots: tuple[float, ...]) -> Floats:
    """(p, len(knots) + 1) How much of each distance lies in each piece between the knots."""
    edges = np.array([0.0, *knots, np.inf])
    return np.asarray(np.clip(distance[:, None] - edges[:-1], 0, np.diff(edges)), np.float64)
