"""Fits `PairTerms` to labeled pairs; `association.log_odds` computes with them.

Logistic regression (Platt 1999) with few terms of known sign: a larger distance never raises the log-odds of one
person, and larger transit log-odds never lower them.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.association.log_odds import distance_pieces, few_crops_share
from schemas.arrays import Bools, Floats
from schemas.calibration import DistanceTerms, PairTerms

#: Nothing is fitted to fewer pairs of one person, or of two people, than this.
MIN_PAIRS = 20
#: The slope changes at these quantiles of the distances of pairs of one person. One bend: a straight line overrates
#: near pairs; on simulated pairs a bend removes a third of the calibration error or more, further ones little.
_KNOT_QUANTILES = (0.5,)
#: Lower limit of each slope, so that the distance always matters.
_MIN_SLOPE = 1e-3
#: L2 penalty on the coefficients of standardized features; keeps them finite where a line separates the pairs.
_PENALTY = 0.05
#: Penalty on the difference between the slopes for few and for many crops, where the data do not tell them apart.
_SLOPE_DIFFERENCE_PENALTY = 1.0


def fit_pairs(
    distance: Floats, transit: Floats, left_weight: Floats, right_weight: Floats, same: Bools | Floats
) -> PairTerms | None:
    """The penalized maximum-likelihood terms of n labeled pairs; None with fewer than MIN_PAIRS of either kind.

    All (n,): attended distance, transit log-odds, weights of both prototypes, whether the pair is one person, or the
    probability of it. Where all transit log-odds are 0, they get weight 1.
    """
    positives = float(same.sum())
    if min(positives, len(same) - positives) < MIN_PAIRS:
        return None
    knots = _knots(distance, same)
    share = few_crops_share(left_weight, right_weight)[:, None]
    pieces = -distance_pieces(distance, knots)  # (n, k)
    k = pieces.shape[1]
    # Columns: slopes for many crops (k) and for few crops (k), transit, intercept of few less many crops, intercept.
    x = np.concatenate([pieces * (1 - share), pieces * share, transit[:, None], share, np.ones((len(same), 1))], axis=1)
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    center = np.append(x[:, :-1].mean(axis=0), 0.0)
    z, y = (x - center) / scale, same.astype(float)

    difference = np.zeros((k, x.shape[1]))  # times the coefficients: difference of the slopes, per piece
    for piece in range(k):
        difference[piece, [piece, k + piece]] = pieces[:, piece].std() / scale[[piece, k + piece]] * [1, -1]
    penalty = _SLOPE_DIFFERENCE_PENALTY * difference.T @ difference
    penalty += _PENALTY * np.diag(np.append(np.ones(x.shape[1] - 1), 0.0))

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        odds = z @ coefficients
        value = np.sum(np.logaddexp(0, odds) - y * odds) + coefficients @ penalty @ coefficients
        return float(value), z.T @ (expit(odds) - y) + 2 * penalty @ coefficients

    slope_bounds = [(_MIN_SLOPE * float(s), None) for s in scale[: 2 * k]]
    bounds = [*slope_bounds, (0.0, None), (None, None), (None, None)]
    start = np.append([low for low, _ in slope_bounds], np.zeros(3))
    options = {"maxiter": 2000, "maxfun": 20_000, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x / scale
    intercept, few_crops_offset = float(found[-1] - found[:-1] @ center[:-1]), float(found[-2])
    many_crops, few_crops = found[: 2 * k].reshape(2, -1).tolist()
    return PairTerms(
        knots=knots,
        many_crops=DistanceTerms(intercept=intercept, slopes=tuple(many_crops)),
        few_crops=DistanceTerms(intercept=intercept + few_crops_offset, slopes=tuple(few_crops)),
        transit=float(found[2 * k]) if transit.any() else 1.0,
    )


def _knots(distance: Floats, same: Bools | Floats) -> tuple[float, ...]:
    if same.dtype == bool:
        return tuple(np.unique(np.quantile(distance[same.astype(bool)], _KNOT_QUANTILES)).tolist())
    order = np.argsort(distance, kind="stable")
    mass = np.cumsum(same[order].astype(float))
    place = np.searchsorted(mass, np.array(_KNOT_QUANTILES) * mass[-1])
    return tuple(np.unique(distance[order][place]).tolist())
