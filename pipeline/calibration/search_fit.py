"""Fits `SearchCalibration` to labeled searches; `pipeline.search` computes with it.

The density of one person's standardized distances over that of strangers' is the odds of a pair over those of its class
sizes, so logistic regression with few monotone terms gives it directly. A search over many identities lives in the far
tail of strangers, where a density estimated by itself would have no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.calibration.reliability import judge, reliability
from pipeline.search.likelihood import DistanceCounts, Reference, distance_pieces, log_ratios
from pipeline.search.posterior import Evidence, posterior
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import DistanceTerms, SearchCalibration, SearchReliability
from schemas.levels import Level

#: Nothing is fitted to fewer searches for people who are there.
MIN_SEARCHES = 20
#: The slope changes at these quantiles of z of one person.
_KNOT_QUANTILES = (0.05, 0.2, 0.5, 0.8)
#: Pairs farther than this quantile of one person, and this much more, are strangers and are left out of the fit.
_FAR_QUANTILE, _FAR_MORE = 0.999, 1.0
#: Limits of each slope: a nearer identity is never less probable, and no few pairs make the ratio a step.
_SLOPES = (1e-3, 10.0)
#: L2 penalty on the coefficients of standardized features.
_PENALTY = 0.05
#: L2 penalty on the difference of neighboring slopes, so that few pairs of one person give a smooth ratio.
_BEND_PENALTY = 1.0
#: Limits of the number of confusions per search.
_CONFUSIONS = (1e-3, 20.0)
_POWERS = (0.3, 1.0)
#: Hits of each search that reliability is judged on.
_HITS = 10


@dataclass(frozen=True)
class LabeledSearch:
    """The distances of one probe to the n identities of a unit, with their truth."""

    distance: Floats  # (n,) the smallest over the identity's prototypes
    vectors: Ints  # (n,) number of prototypes
    same: Bools  # (n,) whether most tracklets of the identity show the probe's person
    holds: Bools  # (n,) whether any of them does
    district: str

    def without_person(self) -> "LabeledSearch":
        """The search if this person had not been there."""
        kept = ~self.holds
        return replace(self, **{name: getattr(self, name)[kept] for name in ("distance", "vectors", "same", "holds")})

    def standardized(self, calibration: SearchCalibration | None = None) -> Floats:
        return Reference.of(DistanceCounts.of(self.distance), calibration).standardized(self.distance)


def fit_search(level: Level, searches: Sequence[LabeledSearch], source: str) -> SearchCalibration | None:
    """The level's calibration, with its reliability on other cities; None with fewer than MIN_SEARCHES searches.

    searches: for people who are there; those for people who are not are made from them.
    """
    fitted = _fit(level, searches, source)
    if fitted is None:
        return None
    districts = sorted({search.district for search in searches})
    first = set(districts[: len(districts) // 2])
    halves = [[s for s in searches if (s.district in first) is half] for half in (True, False)]
    trained = [_fit(level, half, source) for half in halves]
    judged = [(other, fresh) for other, fresh in zip(trained, reversed(halves), strict=True) if other is not None]
    if len(judged) == 2:
        fitted = fitted.model_copy(update={"reliability": judge_searches(judged)})
    return fitted


def judge_searches(parts: Sequence[tuple[SearchCalibration, Sequence[LabeledSearch]]]) -> SearchReliability:
    """Reliability of each calibration on searches that it was not fitted to; every second one without its person."""
    hits: list[tuple[float, bool]] = []
    absent: list[tuple[float, bool]] = []
    for calibration, searches in parts:
        for number, search in enumerate(searches):
            asked = search.without_person() if number % 2 else search
            if not len(asked.distance):
                continue
            found, not_here = posteriors(calibration, asked)
            best = np.argsort(-found, kind="stable")[:_HITS]
            hits += zip(found[best].tolist(), asked.same[best].tolist(), strict=True)
            absent.append((not_here, not asked.same.any()))
    probability, same = (np.array(column) for column in zip(*hits, strict=True))
    stated, right = (np.array(column) for column in zip(*absent, strict=True))
    return SearchReliability(hits=judge(probability, same), not_here=reliability(stated, right))


def posteriors(calibration: SearchCalibration, search: LabeledSearch) -> tuple[Floats, float]:
    """(n,) The posterior of each identity, and that of "not here"."""
    ratios = log_ratios(calibration, search.standardized(calibration), search.vectors)
    found = posterior(Evidence.of(ratios), calibration)
    return np.array([found.of(ratio) for ratio in ratios.tolist()]), found.not_here


def _fit(level: Level, searches: Sequence[LabeledSearch], source: str) -> SearchCalibration | None:
    there = [search for search in searches if search.same.any()]
    if len(there) < MIN_SEARCHES:
        return None
    references = [Reference.of(DistanceCounts.of(search.distance)) for search in there]
    z = np.concatenate([search.standardized() for search in there])
    vectors = np.concatenate([search.vectors for search in there])
    same = np.concatenate([search.same for search in there])
    count = np.concatenate([np.full(len(search.same), len(search.same)) for search in there]).astype(float)
    identities = float(same.sum() / len(there))
    far = float(np.quantile(z[same], _FAR_QUANTILE) + _FAR_MORE)
    near = z < far
    knots = tuple(np.unique(np.quantile(z[same], _KNOT_QUANTILES)).tolist())
    terms, by_vectors, confusions, power = _maximum_likelihood(
        z[near], vectors[near], same[near], np.log(identities / count[near]), count[near], knots
    )
    return SearchCalibration(
        level=level,
        knots=knots,
        terms=terms,
        vectors=by_vectors,
        learned=(float(z.min()), far),
        center=float(np.mean([reference.center for reference in references])),
        spread=float(np.mean([reference.spread for reference in references])),
        identities=max(identities, 1.0),
        confusions=confusions,
        confusion_power=power,
        searches=len(there),
        fitted_on=source[:500],
    )


def _maximum_likelihood(
    z: Floats, vectors: Ints, same: Bools, offset: Floats, count: Floats, knots: tuple[float, ...]
) -> tuple[DistanceTerms, float, float, float]:
    """The terms, the decrease by the log number of vectors, and the number and power of confusions, of p pairs.

    offset: (p,) log-odds of a pair before its distance is known. count: (p,) identities of its search.
    """
    # Columns: slopes (k), decrease by the number of vectors, intercept.
    x = np.concatenate([-distance_pieces(z, knots), -np.log(vectors)[:, None], np.ones((len(z), 1))], axis=1)
    scale = np.where(x.std(axis=0) > 1e-9, x.std(axis=0), 1.0)
    center = np.append(x[:, :-1].mean(axis=0), 0.0)
    x = (x - center) / scale
    y = same.astype(float)
    k = len(knots) + 1
    penalty = _PENALTY * np.diag(np.append(np.ones(x.shape[1] - 1), np.zeros(3)))  # not on intercept and confusions
    for piece in range(k - 1):
        difference = np.zeros(x.shape[1] + 2)
        difference[[piece, piece + 1]] = [1 / scale[piece], -1 / scale[piece + 1]]
        penalty += _BEND_PENALTY * np.outer(difference, difference)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        ratio, power = x @ parameters[:-2], parameters[-1]
        log_confusions = parameters[-2] - np.log(count) + power * ratio
        odds = offset + ratio - np.logaddexp(0.0, log_confusions)
        error, share = expit(odds) - y, expit(log_confusions)
        value = np.sum(np.logaddexp(0.0, odds) - y * odds) + parameters @ penalty @ parameters
        gradient = np.concatenate(
            [x.T @ (error * (1 - power * share)), [-np.sum(error * share), -np.sum(error * share * ratio)]]
        )
        return float(value), gradient + 2 * penalty @ parameters

    slopes = [(_SLOPES[0] * float(of), _SLOPES[1] * float(of)) for of in scale[:k]]
    limits = (float(np.log(_CONFUSIONS[0])), float(np.log(_CONFUSIONS[1])))
    bounds = [*slopes, (None, None), (None, None), limits, _POWERS]
    start = np.append([low for low, _ in slopes], [0.0, 0.0, np.log(0.1), _POWERS[1]])
    options = {"maxiter": 3000, "maxfun": 20_000, "ftol": 1e-10, "gtol": 1e-6}
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    found = fitted[:-2] / scale
    intercept = float(found[-1] - found[:-1] @ center[:-1])
    terms = DistanceTerms(intercept=intercept, slopes=tuple(found[:k].tolist()))
    return terms, float(found[k]), float(np.exp(fitted[-2])), float(fitted[-1])
