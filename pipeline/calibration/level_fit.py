"""Fits one level's calibration to compared pairs: transit times, terms, and their reliability on other cities."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from pipeline.association.transit import prior_times
from pipeline.association.transit_learning import learn_times
from pipeline.calibration.labeled_pairs import ComparedPairs
from pipeline.calibration.reliability import judge
from schemas.arrays import Bools, Floats
from schemas.calibration import Judgment, LevelCalibration, TransitTimes
from schemas.levels import Level

#: Share of the range of distances by which a calibration reaches beyond it.
_BEYOND = 0.05


def fit_level(
    level: Level, pairs: ComparedPairs, children: Sequence[str], lookback_s: float, source: str
) -> LevelCalibration | None:
    """The level's calibration, at operating point 0; None with fewer than MIN_PAIRS pairs of either kind.

    children: of all units of the level. lookback_s: how far back the level compares, seconds. source: names the data.
    """
    times = _learn_times(pairs, children, lookback_s)
    terms = pairs.fit(pairs.transit(times, children))
    if terms is None:
        return None
    return LevelCalibration(
        level=level,
        terms=terms,
        transit=times.model_copy(update={"routes": ()}),  # other cities have other routes
        learned=learned_range(pairs.distance),
        join_log_odds=0.0,
        review_log_odds=0.0,
        fitted_on=source[:500],
        pairs=len(pairs),
        positives=int(pairs.same.sum()),
        reliability=_cross_validate(pairs, children, lookback_s),
    )


def learned_range(distance: Floats) -> tuple[float, float]:
    """The distances (n,) learned from, and a little more, because other people's extremes are not exactly these."""
    low, high = float(distance.min()), float(distance.max())
    more = _BEYOND * (high - low)
    return max(0.0, low - more), high + more


def _cross_validate(pairs: ComparedPairs, children: Sequence[str], lookback_s: float) -> Judgment | None:
    """Reliability on each half of the cities of a fit to the other half; None with one city or too few pairs."""
    districts = np.unique(pairs.district)
    if len(districts) < 2:
        return None
    first = np.isin(pairs.district, districts[: len(districts) // 2])
    probability: list[Floats] = []
    same: list[Bools] = []
    for fitted, fresh in ((pairs.take(first), pairs.take(~first)), (pairs.take(~first), pairs.take(first))):
        times = _learn_times(fitted, children, lookback_s)
        terms = fitted.fit(fitted.transit(times, children))
        if terms is None:
            return None
        probability.append(expit(fresh.log_odds(terms, fresh.transit(times, children))))
        same.append(fresh.same)
    return judge(np.concatenate(probability), np.concatenate(same))


def _learn_times(pairs: ComparedPairs, children: Sequence[str], lookback_s: float) -> TransitTimes:
    """The transit times of labeled pairs; the prior where no pair of one person has a time."""
    timed = pairs.take(pairs.timed)
    if not timed.same.any():
        return prior_times(lookback_s)
    return learn_times(
        lookback_s, children, timed.left_child, timed.right_child, timed.expected_s, timed.gap_s, timed.same
    )
