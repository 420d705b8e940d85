"""The terms of a level, fitted to the probabilities of its pairs as if they were labels."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pipeline.association.log_odds import log_odds
from pipeline.calibration.pairs import fit_pairs
from pipeline.calibration.unlabeled.mixture import Mixture
from pipeline.calibration.unlabeled.pair_sample import PairSample
from pipeline.calibration.unlabeled.strangers import Strangers
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import DistancePrior, DistanceTerms, PairTerms, TransitTimes

#: With fewer pairs of one person, those of the level below help to fit the terms.
_HELPED_BELOW = 60.0
#: Pairs at even steps of distance.
EVEN_PAIRS = 200


@dataclass(frozen=True)
class Estimate:
    """The probabilities of a level's pairs, and what they rest on."""

    pairs: PairSample
    compared: Bools  # (n,) the pairs that a resolve would compare
    transit: Floats  # (n,) log-odds
    witness: Floats  # (n,) the same, normalized within each kind of pairs
    times: TransitTimes
    strangers: Strangers
    mixture: Mixture


def terms_of(estimate: Estimate, below: Estimate | None, known: DistancePrior | None) -> PairTerms | None:
    """The terms fitted to the probabilities; where they are few, together with those of the level below.

    On the lowest level, with a prior, together with pairs over the whole range of distances, half of one person.
    """
    own = columns_of(estimate)
    probability = own[-1]
    if probability.sum() >= _HELPED_BELOW or (below is None and known is None):
        terms = fit_pairs(*own)
        return None if terms is None else rounded(terms)
    if below is None:
        some = np.flatnonzero(estimate.compared)[:: -(-len(probability) // EVEN_PAIRS)]
        help_ = even_columns(estimate, some, float(own[0].min()), float(np.median(own[0])))
    else:
        help_ = columns_of(below)
    terms = fit_pairs(*(np.concatenate(both) for both in zip(own, help_, strict=True)))
    if terms is None:
        return None
    odds = log_odds(terms, *own[:-1])
    low, high = -20.0, 20.0
    for _ in range(60):  # the intercept that gives as many pairs of one person
        middle = (low + high) / 2
        low, high = (middle, high) if expit(odds + middle).sum() < probability.sum() else (low, middle)
    return rounded(shifted(terms, low))


def even_columns(
    estimate: Estimate, rows: Ints, low: float, high: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """The columns of these pairs at even steps of distance, each with its probability if half were one person."""
    one, strangers = estimate.mixture.one_person, estimate.strangers
    pairs = estimate.pairs.take(rows)
    distance = np.linspace(low, high, len(rows))
    # The mixture's ratio at these distances, at each pair's number of crops.
    z = (distance - strangers.level) / strangers.spread
    log_f0 = strangers.shape(0)(z) - np.log(strangers.spread)
    ratio = one.log_density_or_more(distance, pairs.share) - log_f0
    return distance, np.zeros(len(rows)), pairs.left_weight, pairs.right_weight, expit(ratio)


def columns_of(estimate: Estimate) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    pairs, of = estimate.pairs, estimate.compared
    return (
        pairs.distance[of],
        estimate.transit[of],
        pairs.left_weight[of],
        pairs.right_weight[of],
        estimate.mixture.probability[of],
    )


def shifted(terms: PairTerms, by: float) -> PairTerms:
    sides = {
        name: DistanceTerms(intercept=side.intercept + by, slopes=side.slopes)
        for name, side in (("many_crops", terms.many_crops), ("few_crops", terms.few_crops))
    }
    return terms.model_copy(update=sides)


def rounded(terms: PairTerms) -> PairTerms:
    """To six digits, so that another machine's last bits are not seen."""

    def side(of: DistanceTerms) -> DistanceTerms:
        return DistanceTerms(intercept=round(of.intercept, 6), slopes=tuple(round(slope, 6) for slope in of.slopes))

    return PairTerms(
        knots=tuple(round(knot, 6) for knot in terms.knots),
        many_crops=side(terms.many_crops),
        few_crops=side(terms.few_crops),
        transit=round(terms.transit, 6),
    )
