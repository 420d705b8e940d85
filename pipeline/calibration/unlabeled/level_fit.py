"""A level's calibration from unlabeled pairs: appearance and transit times in turn, then the terms.

The mixture gives each pair a probability. To these, as if they were labels, the terms are fitted that a resolve
computes with. A bootstrap over people, as they were found, says how far the log-odds of a pair at the operating point
may be off; the expected share of wrong joins, which the operating point keeps below the stated one, counts that in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from pipeline.association.log_odds import log_odds
from pipeline.association.transit import prior_times, unit_transit
from pipeline.association.transit_learning import learn_times
from pipeline.calibration.level_fit import learned_range
from pipeline.calibration.pairs import fit_pairs
from pipeline.calibration.unlabeled.mixture import (
    Mixture,
    OnePerson,
    Rows,
    Strangers,
    fit_mixture,
    strangers_of,
)
from pipeline.calibration.unlabeled.pair_sample import PairSample
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import DistanceTerms, Evidence, LevelCalibration, PairTerms, TransitTimes
from schemas.levels import Level

#: Rounds of appearance and transit times.
_ROUNDS = 3
#: For transit times, pairs are joins from this probability of their appearance on, and strangers' below that one.
_JOIN_FROM, _STRANGERS_BELOW = 0.1, 0.02
#: Forbidden pairs, compared pairs and estimated pairs of one person, below which a level is not calibrated.
MIN_FORBIDDEN, MIN_COMPARED, MIN_ONE_PERSON = 100, 50, 5.0
#: Least gain in log-likelihood over a city in which nobody is seen twice.
MIN_GAIN = 6.0
#: With fewer pairs of one person, those of the level below help to fit the terms.
_HELPED_BELOW = 60.0
_BOOTSTRAPS = 12
#: The share of wrong joins may be larger than the stated one by this, as far as the standard error makes it likely.
_UNSURE = 0.03
#: Nodes and weights of an expectation over a normal error (Gauss and Hermite).
_ERRORS, _ERROR_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
#: Operating points to try, as log-odds.
OPERATING_POINTS = tuple(half / 2 for half in range(-1, 13))
#: Width of the review band, log-odds.
_REVIEW_BAND = 1.0


@dataclass(frozen=True)
class Estimate:
    """The probabilities of a level's pairs, and what they rest on."""

    pairs: PairSample
    compared: Bools  # (n,) the pairs that a resolve would compare
    transit: Floats  # (n,) log-odds
    times: TransitTimes
    strangers: Strangers
    mixture: Mixture


@dataclass(frozen=True)
class LevelFit:
    """A level's calibration, at the lowest operating point, and the estimate that it was fitted to."""

    calibration: LevelCalibration
    estimate: Estimate


def fit_unlabeled(
    level: Level,
    pairs: PairSample,
    people: tuple[Ints, Ints],
    children: Sequence[str],
    lookback_s: float,
    least: float,
    below: LevelFit | None,
    source: str,
) -> LevelFit | str:
    """The level's fit, or in words why there is too little to learn from.

    people: (n,) and (n,) the group of either side, as found so far. least: mean distance of parts of tracklets.
    """
    compared, forbidden = pairs.shortlisted & ~pairs.different, int(pairs.different.sum())
    if below is not None:
        forbidden = max(forbidden, len(below.estimate.strangers.forbidden))
    if forbidden < MIN_FORBIDDEN:
        return f"only {forbidden} pairs that cannot be one person"
    if compared.sum() < MIN_COMPARED:
        return f"only {int(compared.sum())} pairs to compare"
    rows = _rows(pairs)
    strangers = strangers_of(rows, None if below is None else below.estimate.strangers)
    prior = None if below is None else below.estimate.mixture.one_person
    times = prior_times(lookback_s)
    for _ in range(_ROUNDS):
        mixture = fit_mixture(rows, strangers, _transit(times, children, pairs), prior, least)
        times = _learn_times(mixture, pairs, compared, children, lookback_s)
    transit = _transit(times, children, pairs)
    mixture = fit_mixture(rows, strangers, transit, prior, least)
    estimate = Estimate(pairs, compared, transit, times, strangers, mixture)
    found = float(mixture.probability[compared].sum())
    terms = None
    if found >= MIN_ONE_PERSON and mixture.gain >= MIN_GAIN:
        terms = _terms(estimate, None if below is None else below.estimate)
    if terms is None:
        return f"about {found:.0f} pairs of one person among {int(compared.sum())}, too few to tell from chance"
    error = _standard_error(rows, estimate, prior, None if below is None else below.estimate.strangers, least, people)
    calibration = LevelCalibration(
        level=level,
        terms=terms,
        transit=times,
        learned=learned_range(pairs.distance[compared]),
        join_log_odds=OPERATING_POINTS[0],
        review_log_odds=OPERATING_POINTS[0] - _REVIEW_BAND,
        fitted_on=source[:500],
        pairs=int(compared.sum()),
        positives=round(found),
        evidence=Evidence(
            forbidden=len(strangers.forbidden),
            share=round(mixture.share, 6),
            standard_error=round(error, 6),
        ),
    )
    return LevelFit(calibration, estimate)


def _rows(pairs: PairSample) -> Rows:
    return Rows(
        different=pairs.different,
        distance=pairs.distance,
        share=pairs.share,
        weight=pairs.weight,
        stratum=(pairs.left_camera == pairs.right_camera).astype(np.int64),
        label=np.full(len(pairs), -1),
    )


def _transit(times: TransitTimes, children: Sequence[str], pairs: PairSample) -> Floats:
    found = unit_transit(times, children).log_odds(pairs.left_child, pairs.right_child, pairs.expected_s, pairs.gap_s)
    return np.where(pairs.different, 0.0, found)


def _learn_times(
    mixture: Mixture, pairs: PairSample, compared: np.ndarray, children: Sequence[str], lookback_s: float
) -> TransitTimes:
    """Each pair counts with the probability of its appearance alone, since times would confirm themselves."""
    appearance = np.where(mixture.probability > 0, expit(logit(mixture.share) + mixture.log_ratio), 0.0)
    used = compared & ((appearance >= _JOIN_FROM) | (appearance < _STRANGERS_BELOW))
    return learn_times(
        lookback_s,
        children,
        pairs.left_child[used],
        pairs.right_child[used],
        pairs.expected_s[used],
        pairs.gap_s[used],
        appearance[used] >= _JOIN_FROM,
        probability=appearance[used],
    )


def _terms(estimate: Estimate, below: Estimate | None) -> PairTerms | None:
    """The terms fitted to the probabilities; where they are few, together with those of the level below."""
    own = _columns(estimate)
    probability = own[-1]
    if probability.sum() >= _HELPED_BELOW or below is None:
        return _rounded(fit_pairs(*own))
    terms = fit_pairs(*(np.concatenate(both) for both in zip(own, _columns(below), strict=True)))
    if terms is None:
        return None
    odds = log_odds(terms, *own[:-1])
    low, high = -20.0, 20.0
    for _ in range(60):  # the intercept that gives as many pairs of one person
        middle = (low + high) / 2
        low, high = (middle, high) if expit(odds + middle).sum() < probability.sum() else (low, middle)
    return _rounded(_shifted(terms, low))


def _columns(estimate: Estimate) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    pairs, of = estimate.pairs, estimate.compared
    return (
        pairs.distance[of],
        estimate.transit[of],
        pairs.left_weight[of],
        pairs.right_weight[of],
        estimate.mixture.probability[of],
    )


def _shifted(terms: PairTerms, by: float) -> PairTerms:
    sides = {
        name: DistanceTerms(intercept=side.intercept + by, slopes=side.slopes)
        for name, side in (("many_crops", terms.many_crops), ("few_crops", terms.few_crops))
    }
    return terms.model_copy(update=sides)


def _rounded(terms: PairTerms | None) -> PairTerms | None:
    """To six digits, so that another machine's last bits are not seen."""
    if terms is None:
        return None

    def side(of: DistanceTerms) -> DistanceTerms:
        return DistanceTerms(intercept=round(of.intercept, 6), slopes=tuple(round(slope, 6) for slope in of.slopes))

    return PairTerms(
        knots=tuple(round(knot, 6) for knot in terms.knots),
        many_crops=side(terms.many_crops),
        few_crops=side(terms.few_crops),
        transit=round(terms.transit, 6),
    )


def _standard_error(
    rows: Rows,
    estimate: Estimate,
    prior: OnePerson | None,
    below: Strangers | None,
    least: float,
    people: tuple[Ints, Ints],
) -> float:
    """Bootstrap standard error of the log-odds of pairs that would be joined; both sides of a pair are drawn.

    What is off in common counts, which is what the expected share of wrong joins depends on: pairs weigh p (1 - p).
    """
    mixture, transit, compared = estimate.mixture, estimate.transit, estimate.compared
    left, right = (np.unique(np.concatenate(people), return_inverse=True)[1].reshape(-1)).reshape(2, -1)
    odds = logit(mixture.share) + mixture.log_ratio + transit
    near = np.flatnonzero(compared)[np.argsort(-odds[compared], kind="stable")]
    near = near[: max(int((odds[near] >= OPERATING_POINTS[0]).sum()), 10)]
    counts = expit(odds[near]) * expit(-odds[near])
    counts /= counts.sum()
    rng = np.random.default_rng(0)
    drawn: list[float] = []
    for _ in range(_BOOTSTRAPS):
        drawn_people = rng.exponential(size=int(max(left.max(), right.max())) + 1)
        # Two sides of one person are one draw: its square would count one person's pairs twice.
        both = np.where(left == right, drawn_people[left], drawn_people[left] * drawn_people[right])
        again = Rows(
            rows.different,
            rows.distance,
            rows.share,
            rows.weight * both,
            rows.stratum,
            rows.label,
        )
        found = fit_mixture(again, strangers_of(again, below), transit, prior, least, mixture)
        drawn.append(float(logit(found.share) + found.log_ratio[near] @ counts))
    return float(np.std(drawn))


def at_operating_point(calibration: LevelCalibration, point: float) -> LevelCalibration:
    """The calibration with this operating point, log-odds."""
    return calibration.model_copy(update={"join_log_odds": point, "review_log_odds": point - _REVIEW_BAND})


def keeps_rate(calibration: LevelCalibration, joins: Floats, most: float) -> tuple[bool, float]:
    """Whether at most this share of the joins (j,), log-odds, is expected to be wrong, and the share.

    The log-odds may be off by their standard error. The share that this makes likely may be larger, but not by much.
    """
    if not len(joins):
        return True, 0.0
    assert calibration.evidence is not None
    off = calibration.evidence.standard_error * _ERRORS
    likely = float(expit(off[:, None] - joins).mean(axis=1) @ _ERROR_WEIGHTS / _ERROR_WEIGHTS.sum())
    wrong = float(expit(-joins).mean())
    return wrong <= most and likely <= most + _UNSURE, wrong
