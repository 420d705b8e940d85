"""Fits the calibration of pairs: from labeled pairs to the terms that `association.log_odds` computes with.

Logistic regression (Platt 1999) with few terms, each of a known sign: more distance never speaks for one person, and
more transit log-odds never against.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.association.log_odds import pieces_of, thinness
from schemas.arrays import Bools, Floats
from schemas.calibration import Ends, PairTerms

#: Fewer than this many pairs of one person are not fitted to.
FEWEST = 20
#: The slope may change at these quantiles of the distances of pairs of one person. One, since a straight line overrates
#: near pairs: on simulated pairs it takes a third off the calibration error or more, and further ones take off little.
QUANTILES = (0.5,)
#: The slope of each piece is at least this; with 0 a distance could stop to matter.
_LEAST_SLOPE = 1e-3
#: Pulls the slopes of a feature with standard deviation 1 towards 0; data that a line parts perfectly stay finite.
_PENALTY = 0.05
#: Pulls the slopes of thin and of thick pairs towards each other, where the data do not tell them apart.
_ALIKE = 1.0


def fit_pairs(
    distance: Floats,
    transit: Floats,
    left_weight: Floats,
    right_weight: Floats,
    same: Bools,
    *,
    quantiles: tuple[float, ...] = QUANTILES,
    by_evidence: bool = True,
) -> PairTerms | None:
    """The maximum-likelihood calibration of n labeled pairs; None with fewer than 20 of either kind.

    quantiles: of the distances of pairs of one person, where the slope may change; () for a straight line.
    by_evidence: whether thin and thick pairs get a line each.
    Where no pair has a transit time, transit log-odds are believed as they are.
    """
    positives = int(same.sum())
    if min(positives, len(same) - positives) < FEWEST:
        return None
    knots = tuple(np.unique(np.quantile(distance[same], quantiles)).tolist()) if quantiles else ()
    thin = thinness(left_weight, right_weight)[:, None] if by_evidence else np.zeros((len(same), 1))
    pieces = -pieces_of(distance, knots)
    falling = np.concatenate([pieces * (1 - thin), pieces * thin], axis=1) if by_evidence else pieces
    x = np.concatenate([falling, transit[:, None], thin, np.ones((len(same), 1))], axis=1)  # (n, terms)
    slopes = falling.shape[1]
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    center = np.append(x[:, :-1].mean(axis=0), 0.0)  # the last column is the intercept
    z, y = (x - center) / scale, same.astype(float)

    pull = np.zeros((slopes // 2 if by_evidence else 0, x.shape[1]))  # @ at: how far the ends' slopes are apart
    for piece in range(len(pull)):
        pull[piece, [piece, len(pull) + piece]] = pieces[:, piece].std() / scale[[piece, len(pull) + piece]] * [1, -1]
    penalty = _ALIKE * pull.T @ pull + _PENALTY * np.diag(np.append(np.ones(x.shape[1] - 1), 0.0))

    def loss(at: Floats) -> tuple[float, Floats]:
        odds = z @ at
        value = np.sum(np.logaddexp(0, odds) - y * odds) + at @ penalty @ at
        return float(value), z.T @ (expit(odds) - y) + 2 * penalty @ at

    least = [(_LEAST_SLOPE * float(s), None) for s in scale[:slopes]]
    bounds = [*least, (0.0, None), (None, None), (None, None)]
    start = np.append([low for low, _ in least], np.zeros(3))
    options = {"maxiter": 2000, "maxfun": 20_000, "ftol": 1e-10, "gtol": 1e-6}
    at = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x / scale
    intercept, of_thin = float(at[-1] - at[:-1] @ center[:-1]), float(at[-2])
    thick, thinner = (at[:slopes].reshape(2, -1) if by_evidence else np.stack([at[:slopes]] * 2)).tolist()
    return PairTerms(
        knots=knots,
        thick=Ends(intercept=intercept, slopes=tuple(thick)),
        thin=Ends(intercept=intercept + of_thin, slopes=tuple(thinner)),
        transit=float(at[slopes]) if transit.any() else 1.0,
    )
