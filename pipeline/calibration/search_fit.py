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
from pipeline.search.likelihood import DistanceCounts, Reference, distance_pieces, log_ratios, look_ratios
from pipeline.search.nearest import Gallery
from pipeline.search.posterior import Evidence, posterior
from pipeline.search.transit import Transit
from reid_core.serving.core import ReIDCore
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
#: Of the strangers of each search this share, the nearest, is learned from, and of the others this share.
_NEAR_SHARE, _OTHERS = 0.05, 0.05
#: L2 penalty on the coefficients of standardized features.
_PENALTY = 0.05
#: L2 penalty on the difference of neighboring slopes, so that few pairs of one person give a smooth ratio.
_BEND_PENALTY = 1.0
#: Limits of the number of confusions per search.
_CONFUSIONS = (1e-3, 20.0)
#: Hits of each search that reliability is judged on.
_HITS = 10


@dataclass(frozen=True)
class LabeledSearch:
    """The distances of one probe to the n identities of a unit, with their truth."""

    distance: Floats  # (n,) the smallest over the identity's prototypes
    exact: Bools  # (n,) whether it was scored; the others stand for strangers and are no hits (`Compared`)
    vectors: Ints  # (n,) number of prototypes
    same: Bools  # (n,) whether most tracklets of the identity show the probe's person
    holds: Bools  # (n,) whether any of them does
    transit: Transit  # to the n identities; unknown where the probe or the city has no times
    district: str

    def without_person(self) -> "LabeledSearch":
        """The search if this person had not been there."""
        kept = ~self.holds
        columns = {name: getattr(self, name)[kept] for name in ("distance", "exact", "vectors", "same", "holds")}
        return replace(self, transit=self.transit.take(kept), **columns)

    def among_strangers(self, core: ReIDCore, feature: Floats, others: Sequence[Gallery]) -> "LabeledSearch":
        """The search for the same probe (its feature, (D,)) in a larger city, whose times are not known."""
        found = [other.compare(core, feature) for other in others]
        distance = np.concatenate([self.distance, *(part.distance for part in found)])
        more = np.zeros(len(distance) - len(self.distance), dtype=bool)
        return LabeledSearch(
            distance=distance,
            exact=np.concatenate([self.exact, *(part.exact for part in found)]),
            vectors=np.concatenate([self.vectors, *(other.vectors for other in others)]),
            same=np.append(self.same, more),
            holds=np.append(self.holds, more),
            transit=Transit.unknown(len(distance)),
            district=self.district,
        )

    def standardized(self, calibration: SearchCalibration | None = None) -> Floats:
        return self.reference(calibration).standardized(self.distance, self.vectors)

    def reference(self, calibration: SearchCalibration | None = None) -> Reference:
        return Reference.of(DistanceCounts.of(self.distance, self.vectors), calibration)


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
            hits += hits_of(asked, found)
            absent.append((not_here, not asked.same.any()))
    probability, same = (np.array(column) for column in zip(*hits, strict=True))
    stated, right = (np.array(column) for column in zip(*absent, strict=True))
    return SearchReliability(hits=judge(probability, same), not_here=reliability(stated, right))


def hits_of(search: LabeledSearch, posterior: Floats) -> list[tuple[float, bool]]:
    """The best hits: the posterior of each, and whether it is the person. posterior: (n,)."""
    scored = np.flatnonzero(search.exact)
    best = scored[np.argsort(-posterior[scored], kind="stable")[:_HITS]]
    return list(zip(posterior[best].tolist(), search.same[best].tolist(), strict=True))


def posteriors(calibration: SearchCalibration, search: LabeledSearch) -> tuple[Floats, float]:
    """(n,) The posterior of each identity, and that of "not here"."""
    look = look_ratios(calibration, search.standardized(calibration), search.vectors)
    ratios = log_ratios(calibration, look, search.transit)
    found = posterior(Evidence.of(ratios, look), calibration)
    return found.each(ratios, look), found.not_here


def _fit(level: Level, searches: Sequence[LabeledSearch], source: str) -> SearchCalibration | None:
    there = [search for search in searches if search.same.any()]
    if len(there) < MIN_SEARCHES:
        return None
    references = [search.reference() for search in there]
    standardized = [search.standardized() for search in there]
    of_one = np.concatenate([z[search.same] for z, search in zip(standardized, there, strict=True)])
    identities = max(len(of_one) / len(there), 1.0)
    far = float(np.quantile(of_one, _FAR_QUANTILE) + _FAR_MORE)
    knots = tuple(np.unique(np.quantile(of_one, _KNOT_QUANTILES)).tolist())
    pairs = _Pairs.of(there, standardized, identities, far)
    terms, by_vectors, transit, confusions = _maximum_likelihood(pairs, knots)
    return SearchCalibration(
        level=level,
        knots=knots,
        terms=terms,
        vectors=by_vectors,
        transit=transit,
        learned=(float(pairs.z.min()), far),
        center=float(np.mean([reference.center for reference in references])),
        spread=float(np.mean([reference.spread for reference in references])),
        identities=identities,
        confusions=confusions,
        searches=len(there),
        fitted_on=source[:500],
    )


@dataclass(frozen=True)
class _Pairs:
    """p pairs of a probe and an identity."""

    z: Floats  # (p,)
    vectors: Ints  # (p,)
    transit: Floats  # (p,) log-odds
    same: Bools  # (p,)
    count: Floats  # (p,) identities of its search
    offset: Floats  # (p,) log-odds of a pair before its distance is known
    weight: Floats  # (p,) pairs that it stands for

    @classmethod
    def of(
        cls, searches: Sequence[LabeledSearch], standardized: Sequence[Floats], identities: float, far: float
    ) -> "_Pairs":
        """The possible pairs nearer than `far`: all of one person, all near ones, and an even sample of the others."""
        columns: list[tuple[Floats, Ints, Floats, Bools, Floats, Floats]] = []
        for search, z in zip(searches, standardized, strict=True):
            near = search.same | (z < np.quantile(z, _NEAR_SHARE))
            others = np.flatnonzero(~near)[:: round(1 / _OTHERS)]
            kept, weight = near.copy(), np.ones(len(z))
            kept[others], weight[others] = True, (~near).sum() / max(len(others), 1)
            kept &= ~search.transit.impossible & (z < far)
            count = np.full(len(z), float(len(z)))
            every = (z, search.vectors, search.transit.log_odds, search.same, count, weight)
            columns.append(tuple(column[kept] for column in every))  # type: ignore[arg-type]
        z, vectors, transit, same, count, weight = (np.concatenate(column) for column in zip(*columns, strict=True))
        return cls(z, vectors, transit, same, count, np.log(identities / count), weight)


def _maximum_likelihood(pairs: _Pairs, knots: tuple[float, ...]) -> tuple[DistanceTerms, float, float, float]:
    """The terms, the decrease by the log number of vectors, the weight of transit, and the number of confusions."""
    # Columns: slopes (k), decrease by the number of vectors, transit, intercept.
    k, timed = len(knots) + 1, bool(pairs.transit.any())
    parts = [-distance_pieces(pairs.z, knots), -np.log(pairs.vectors), pairs.transit, np.ones(len(pairs.z))]
    raw = np.column_stack(parts)
    center, scale = (np.append(of(raw[:, :-1], axis=0), end) for of, end in ((np.mean, 0.0), (np.std, 1.0)))
    center[k + 1] = 0.0  # so that the columns without transit add up to the ratio of the look
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = (raw - center) / scale
    of_look = np.ones(x.shape[1])
    of_look[k + 1] = 0.0
    y, weight, log_count = pairs.same.astype(float), pairs.weight, np.log(pairs.count)
    penalty = _PENALTY * np.diag(np.append(np.ones(x.shape[1] - 1), np.zeros(2)))  # not on intercept and confusions
    for piece in range(k - 1):
        difference = np.zeros(x.shape[1] + 1)
        difference[[piece, piece + 1]] = [1 / scale[piece], -1 / scale[piece + 1]]
        penalty += _BEND_PENALTY * np.outer(difference, difference)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        ratio, look = x @ parameters[:-1], x @ (parameters[:-1] * of_look)
        log_confusions = parameters[-1] - log_count + look
        odds = pairs.offset + ratio - np.logaddexp(0.0, log_confusions)
        error, share = weight * (expit(odds) - y), expit(log_confusions)
        value = np.sum(weight * (np.logaddexp(0.0, odds) - y * odds)) + parameters @ penalty @ parameters
        gradient = np.append(x.T @ error - of_look * (x.T @ (error * share)), -np.sum(error * share))
        return float(value), gradient + 2 * penalty @ parameters

    slopes = [(_SLOPES[0] * float(of), _SLOPES[1] * float(of)) for of in scale[:k]]
    limits = (float(np.log(_CONFUSIONS[0])), float(np.log(_CONFUSIONS[1])))
    bounds = [*slopes, (None, None), (0.0, None), (None, None), limits]
    start = np.append([low for low, _ in slopes], [0.0, 0.0, 0.0, np.log(0.1)])
    options = {"maxiter": 3000, "maxfun": 20_000, "ftol": 1e-10, "gtol": 1e-6}
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    found = fitted[:-1] / scale
    intercept = float(found[-1] - found[:-1] @ center[:-1])
    terms = DistanceTerms(intercept=intercept, slopes=tuple(found[:k].tolist()))
    # Where no times were learned from, they count as much as their log-odds say.
    transit = float(found[k + 1]) if timed else 1.0
    return terms, float(found[k]), transit, float(np.exp(fitted[-1]))
