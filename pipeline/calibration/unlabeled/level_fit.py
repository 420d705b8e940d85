"""A level's calibration from unlabeled pairs: appearance and transit times in turn, then the terms.

The mixture gives each pair a probability. To these, as if they were labels, the terms are fitted that a resolve
computes with. A bootstrap over people, as they were found, says how far the log-odds of a pair at the operating point
may be off; the expected share of wrong joins, which the operating point keeps below the stated one, counts that in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit

from pipeline.association.transit import CLIP, SAME_CHILD, prior_times, unit_transit
from pipeline.association.transit_learning import learn_times
from pipeline.calibration.level_fit import learned_range
from pipeline.calibration.pairs import fit_pairs
from pipeline.calibration.unlabeled.mixture import Mixture, OnePerson, fit_mixture
from pipeline.calibration.unlabeled.pair_sample import PairSample
from pipeline.calibration.unlabeled.prior import drawn, one_person
from pipeline.calibration.unlabeled.strangers import (
    ONE_CAMERA,
    PRIOR_STRANGERS,
    SEVERAL,
    Rows,
    Strangers,
    strangers_of,
)
from pipeline.calibration.unlabeled.terms import EVEN_PAIRS, Estimate, even_columns, rounded, shifted, terms_of
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import DistancePrior, Evidence, LevelCalibration, TransitTimes
from schemas.levels import UPWARD, Level

#: Rounds of appearance and transit times.
_ROUNDS = 3
#: For transit times, pairs are joins from this probability of their appearance on, and strangers' below that one.
_JOIN_FROM, _STRANGERS_BELOW = 0.1, 0.02
#: Pairs that may be one person by the gates show strangers where the prior log-odds of their time are below this.
_UNTIMELY = -2.0
#: Pairs of one camera have been judged at its building; above, they are taken for strangers unless they are much alike.
_NEARER = 0.3
#: Forbidden pairs, compared pairs and estimated pairs of one person, below which a level is not calibrated.
MIN_FORBIDDEN, MIN_COMPARED, MIN_ONE_PERSON = 100, 50, 5.0
#: Least gain in log-likelihood over a city in which nobody is seen twice.
MIN_GAIN = 6.0
#: Of a level with fewer pairs than MIN_COMPARED: the share of one person's pairs where no level below has one (of one
#: above it is half of the one below: 0.032, 0.019 and 0.010 in rendered cities), and the error of its log-odds.
_PRIOR_SHARE, _PRIOR_ERROR = 0.01, 1.0
#: Its joins are too few to choose an operating point by, so each of them is as sure as all together must be elsewhere:
#: from probabilities of 0.95 on, if the log-odds are off by that error.
_PRIOR_POINT = 4.0
_BOOTSTRAPS = 16
#: Of the joins this part of the share is wrong that the probabilities of their pairs state: a join is the nearest of
#: several, and in a group the mean of its pairs. Measured with truth: 0.2 to 0.5 (docs/experiments.md, 16).
_OF_JOINS = 0.5
#: With as many pairs of one person half of what is stated beyond that counts, too; with fewer more of it: a version of
#: five minutes (31 pairs) stated 13 % and had 19 % wrong.
_SURE_PAIRS = 100.0
#: The share of wrong joins may be larger than the stated one by this, as far as the standard error makes it likely.
_UNSURE = 0.03
#: Nodes and weights of an expectation over a normal error (Gauss and Hermite).
_ERRORS, _ERROR_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
#: Operating points to try, as log-odds.
OPERATING_POINTS = tuple(half / 2 for half in range(-1, 13))
#: Width of the review band, log-odds.
_REVIEW_BAND = 1.0


@dataclass(frozen=True)
class LevelFit:
    """A level's calibration, at the lowest operating point to choose from, and the estimate that it was fitted to."""

    calibration: LevelCalibration
    estimate: Estimate
    why_prior: str = ""  # where there was too little, so that it is what was known before: in words


def fit_unlabeled(
    level: Level,
    pairs: PairSample,
    people: tuple[Ints, Ints] | None,
    children: Sequence[str],
    lookback_s: float,
    least: float,
    below: LevelFit | None,
    known: DistancePrior | None,
    source: str,
    label: Ints | None = None,
) -> LevelFit | str:
    """The level's fit, or in words why there is too little to learn from.

    label: (n,) what operators said of the pairs, as `Rows.label`.
    people: (n,) and (n,) the group of either side, as found so far; without them no standard error is found.
    least: mean distance of parts of tracklets. known: the model's prior, for the lowest level; a level above starts
    from the one below.
    """
    compared, forbidden = pairs.shortlisted & ~pairs.different, int(pairs.different.sum())
    if below is not None:
        forbidden = max(forbidden, below.estimate.strangers.forbidden)
    prior_known = known
    if forbidden >= PRIOR_STRANGERS:  # the city shows more than the prior, and of its own cameras
        known = None
    if forbidden < MIN_FORBIDDEN and known is None:
        return f"only {forbidden} pairs that cannot be one person, and nothing is known of the model's distances"
    of_two = int((compared & (pairs.left_child != pairs.right_child)).sum())
    times = prior_times(lookback_s)
    rows = _rows(pairs, ~pairs.different & (_transit(times, children, pairs) < _UNTIMELY), label)
    nearer = 0.0 if level is Level.BUILDING else _NEARER
    if of_two < MIN_COMPARED:  # pairs of one camera are nearer than what is known of strangers, mostly of two, shows
        why = f"only {of_two} pairs of two {UPWARD[UPWARD.index(level) - 1].value}s to compare"
        return _prior_fit(level, rows, pairs, children, times, _Others(below, prior_known, nearer), source, why)
    others = _Others(below, known, nearer)
    strangers = others.strangers(rows)
    prior = others.one_person(strangers)
    probability = np.zeros(len(pairs))
    for _ in range(_ROUNDS):
        transit = _normalized(_transit(times, children, pairs), rows, probability)
        mixture = fit_mixture(rows, strangers, transit, prior, least)
        rows = replace(rows, untimely=np.where(rows.untimely > 0, 1 - mixture.probability, 0.0))
        strangers = others.strangers(rows)
        times = _learn_times(mixture, pairs, compared, children, lookback_s)
        probability = mixture.probability
    transit = _transit(times, children, pairs)
    witness = _normalized(transit, rows, probability)
    mixture = fit_mixture(rows, strangers, witness, prior, least)
    estimate = Estimate(pairs, compared, transit, witness, times, strangers, mixture)
    found = float(mixture.probability[compared].sum())
    terms = None
    if found >= MIN_ONE_PERSON and mixture.gain >= MIN_GAIN:
        terms = terms_of(estimate, None if below is None else below.estimate, known)
    if terms is None:
        return f"about {found:.0f} pairs of one person among {int(compared.sum())}, too few to tell from chance"
    error = 0.0 if people is None else _standard_error(rows, estimate, others, least, people)
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
            forbidden=strangers.forbidden,
            share=round(mixture.share, 6),
            standard_error=round(error, 6),
        ),
    )
    return LevelFit(calibration, estimate)


def _prior_fit(
    level: Level,
    rows: Rows,
    pairs: PairSample,
    children: Sequence[str],
    times: TransitTimes,
    others: "_Others",
    source: str,
    why: str,
) -> LevelFit | str:
    """What is known of one person and of strangers, for a level with few pairs of its own; `why` where nothing is.

    Returns to one child are joined only if they are far more alike than others: hardly any is right where few people
    go from one child to another.
    """
    compared = pairs.shortlisted & ~pairs.different
    by_prior = others.below is not None and others.below.why_prior  # a guess about a guess joined strangers
    if by_prior or not (compared & (pairs.left_child != pairs.right_child)).any():
        return why
    strangers = others.strangers(rows)
    one = others.one_person(strangers)
    if one is None:
        return why
    share = _PRIOR_SHARE if others.below is None else others.below.estimate.mixture.share / 2
    ratios = np.array(times.kind_log_ratios)
    ratios[SAME_CHILD] = -CLIP
    times = times.model_copy(update={"kind_log_ratios": tuple(ratios.tolist())})
    transit, odds = _transit(times, children, pairs), np.full(len(pairs), logit(share))
    ratio = one.log_density_or_more(rows.distance, rows.share) - strangers.log_density
    probability = np.where(pairs.different, 0.0, expit(odds + ratio + transit))
    estimate = Estimate(
        pairs, compared, transit, transit, times, strangers, Mixture(one, share, odds, ratio, probability, 0.0)
    )
    some = np.resize(np.flatnonzero(compared), EVEN_PAIRS)
    terms = fit_pairs(*even_columns(estimate, some, one.mode - 2 * one.near, strangers.level))
    if terms is None:
        return why
    evidence = Evidence(forbidden=strangers.forbidden, share=round(share, 6), standard_error=_PRIOR_ERROR)
    calibration = LevelCalibration(
        level=level,
        terms=rounded(shifted(terms, float(logit(share)))),
        transit=times,
        learned=None if others.below is None else others.below.calibration.learned,
        join_log_odds=_PRIOR_POINT,
        review_log_odds=_PRIOR_POINT - _REVIEW_BAND,
        fitted_on=f"{why}, so what was known before; {source}"[:500],
        pairs=int(compared.sum()),
        positives=round(float(probability[compared].sum())),
        evidence=evidence,
    )
    known = "the model" if others.below is None else "the level below"
    return LevelFit(calibration, estimate, f"{why}; it takes what is known of {known}")


@dataclass(frozen=True)
class _Others:
    """What is known of distances from elsewhere: of the level below, or of the model."""

    below: LevelFit | None
    known: DistancePrior | None
    nearer: float  # see `strangers_of`

    def strangers(self, rows: Rows, rng: np.random.Generator | None = None) -> Strangers:
        """rng: draws another prior that is as likely."""
        if self.below is not None:
            return strangers_of(rows, self.below.estimate.strangers, nearer=self.nearer)
        if self.known is None:
            return strangers_of(rows, nearer=self.nearer)
        quantiles = np.array(self.known.strangers)
        weight = None if rng is None else rng.exponential(size=len(quantiles))
        return strangers_of(rows, None, quantiles, weight, nearer=self.nearer)

    def one_person(self, strangers: Strangers, rng: np.random.Generator | None = None) -> OnePerson | None:
        """rng: as above."""
        if self.below is not None:
            return self.below.estimate.mixture.one_person
        if self.known is None:
            return None
        found = one_person(self.known, strangers)
        return found if rng is None else drawn(found, rng)


def _rows(pairs: PairSample, untimely: Bools, label: Ints | None) -> Rows:
    # What cannot be is not said to be: clocks and walks are known better than who is seen from behind.
    label = np.full(len(pairs), -1) if label is None else np.where(pairs.different, -1, label)
    return Rows(
        different=pairs.different,
        distance=pairs.distance,
        share=pairs.share,
        weight=pairs.weight,
        stratum=ONE_CAMERA * (pairs.left_camera == pairs.right_camera) + SEVERAL * (~pairs.alone).astype(np.int64),
        label=label,
        untimely=(untimely & (label != 1)).astype(np.float64),
    )


def _transit(times: TransitTimes, children: Sequence[str], pairs: PairSample) -> Floats:
    found = unit_transit(times, children).log_odds(pairs.left_child, pairs.right_child, pairs.expected_s, pairs.gap_s)
    return np.where(pairs.different, 0.0, found)


def _normalized(transit: Floats, rows: Rows, probability: Floats) -> Floats:
    """(n,) Transit log-odds whose ratio is 1 on the mean over the strangers of each kind, as that of two densities is.

    Single tracklets are mostly compared a short time after; with the ratio of all kinds together every near pair of
    theirs would look like one person, and more would at each round. probability: (n,) that each pair is one person.
    """
    weight = np.where(rows.different, 0.0, rows.weight * (1 - probability))
    total = np.bincount(rows.stratum, weight)
    ratio = np.bincount(rows.stratum, weight * np.exp(transit)) / np.maximum(total, 1e-9)
    return transit - np.log(np.where(total > 0, ratio, 1.0))[rows.stratum]


def _learn_times(
    mixture: Mixture, pairs: PairSample, compared: np.ndarray, children: Sequence[str], lookback_s: float
) -> TransitTimes:
    """Each pair counts with the probability of its appearance alone, since times would confirm themselves."""
    appearance = np.where(mixture.probability > 0, expit(mixture.prior_odds + mixture.log_ratio), 0.0)
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


def _standard_error(
    rows: Rows, estimate: Estimate, others: "_Others", least: float, people: tuple[Ints, Ints]
) -> float:
    """Bootstrap standard error of the log-odds of pairs that would be joined; both sides of a pair are drawn.

    What is off in common counts, which is what the expected share of wrong joins depends on: pairs weigh p (1 - p).
    """
    mixture, transit, compared = estimate.mixture, estimate.witness, estimate.compared
    left, right = (np.unique(np.concatenate(people), return_inverse=True)[1].reshape(-1)).reshape(2, -1)
    odds = mixture.prior_odds + mixture.log_ratio + transit
    near = np.flatnonzero(compared)[np.argsort(-odds[compared], kind="stable")]
    near = near[: max(int((odds[near] >= OPERATING_POINTS[0]).sum()), 10)]
    counts = expit(odds[near]) * expit(-odds[near])
    counts /= counts.sum()
    rng = np.random.default_rng(0)
    drawn: list[float] = []
    for _ in range(_BOOTSTRAPS):
        again = replace(rows, weight=rows.weight * drawn_weights(left, right, rng))
        strangers = others.strangers(again, rng)
        found = fit_mixture(again, strangers, transit, others.one_person(strangers, rng), least, mixture)
        drawn.append(float((found.prior_odds + found.log_ratio)[near] @ counts))
    # A draw in which hardly anybody is left says nothing about the others, and would decide a standard deviation alone.
    low, high = np.quantile(drawn, [0.16, 0.84])
    return float(high - low) / 2


def drawn_weights(left: Ints, right: Ints, rng: np.random.Generator) -> Floats:
    """(n,) How often each pair occurs where people are drawn anew. left, right: (n,) numbers of its people, from 0.

    Two sides of one person are one draw: its square would count one person's own pairs twice.
    """
    people = rng.exponential(size=int(max(left.max(), right.max())) + 1)
    return np.where(left == right, people[left], people[left] * people[right])


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
    part = _OF_JOINS + (1 - _OF_JOINS) * _SURE_PAIRS / (_SURE_PAIRS + calibration.positives)
    likely = part * float(expit(off[:, None] - joins).mean(axis=1) @ _ERROR_WEIGHTS / _ERROR_WEIGHTS.sum())
    wrong = part * float(expit(-joins).mean())
    return wrong <= most and likely <= most + _UNSURE, wrong
