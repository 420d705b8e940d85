"""Learns the calibrations of a unit from its own crops, level by level, as a resolve goes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache

import numpy as np
from scipy.special import logit
from sqlalchemy import text

from pipeline.association.transit import max_lookback_s
from pipeline.calibration.drift import profile
from pipeline.calibration.unlabeled.answers import Answers, read_answers
from pipeline.calibration.unlabeled.level_fit import (
    OPERATING_POINTS,
    LevelFit,
    at_operating_point,
    fit_unlabeled,
    keeps_rate,
)
from pipeline.calibration.unlabeled.operating_point import lowest_kept
from pipeline.calibration.unlabeled.overlaps import likely_overlaps, without
from pipeline.calibration.unlabeled.pair_sample import PairSampler, as_people
from pipeline.calibration.unlabeled.prior import prior_of
from pipeline.calibration.unlabeled.rehearsal import (
    Rehearsal,
    Rehearsed,
    Tracklets,
    Versions,
    newest,
    read_tracklets,
)
from pipeline.calibration.unlabeled.remembered import RememberedDistances
from pipeline.city.units import read_city
from pipeline.registry import ModelRow
from pipeline.store import Store
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Floats
from schemas.calibration import DistancePrior, LevelCalibration, straight_line
from schemas.city_file import City
from schemas.levels import UPWARD, Level, is_within, level_of, parent_of
from schemas.settings import AssociationSettings

#: Default of the stated false-merge rate.
MAX_FALSE_MERGE_RATE = 0.05
#: A version is learned from at most so many crops, the latest before its mark, so that it takes two or three minutes of
#: one processor and no more memory in a large city or after a week (docs/results.md, "Without labels").
MAX_CROPS = 50_000
#: Log-odds that no pair reaches: the first pass over the buildings joins nothing.
_NEVER = 50.0
#: The first pass over a level above joins by the fit of the level below, this much more strictly.
_FIRST_GUESS = 1.0
#: The second pass compares identities joined by the fit of the first, from these log-odds on: whoever is wrongly joined
#: there is missing among the strangers of single tracklets.
_SECOND_GUESS = 1.0
_PASSES = 2
_ONE_TOO_MANY = text(
    "SELECT captured_at FROM crop WHERE camera = ANY(:cameras) AND timed AND withdrawn_at IS NULL "
    "AND captured_at >= :start AND captured_at < :before ORDER BY captured_at DESC OFFSET :most LIMIT 1"
)


@dataclass(frozen=True)
class Learned:
    """What was learned of a unit."""

    levels: dict[Level, LevelCalibration]
    why_not: dict[Level, str]  # of levels that were not calibrated, or by what was known before
    tracklets: int
    answers: Answers
    likely_overlaps: tuple[tuple[str, str], ...] = ()
    crops_since: datetime | None = None  # where there were more than MAX_CROPS: of the first that was learned from


def learn(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    unit: str,
    start: datetime,
    before: datetime,
    on_step: Callable[[str], None] = lambda _: None,
    *,
    answers_before: datetime | None = None,
    max_false_merge_rate: float = MAX_FALSE_MERGE_RATE,
) -> Learned:
    """The calibrations of the unit and all below it from its timed crops in [start, before), which must be embedded.

    Of more than MAX_CROPS, from the latest ones. answers_before: only what was said before that counts.
    """
    city, settings = read_city(store), store.settings.association
    cameras = [one.code for one in city.cameras(unit)]
    crops_since = _since(store, cameras, start, before)
    start = crops_since or start
    tracklets = read_tracklets(store, core, model, cameras, start, before)
    source = f"unlabeled crops of {unit} from {start:%Y-%m-%d %H:%M:%S} to {before:%Y-%m-%d %H:%M:%S} UTC"
    known = prior_of(store.settings, model)
    if known is not None:
        source += ", and the catalog's distances of the model"
    answers = read_answers(store, unit, tracklets.crops, answers_before)
    if answers.used:
        source += f", and {answers.used} answers"
    learned = learn_from(
        city,
        core,
        settings,
        unit,
        tracklets,
        known,
        source,
        on_step,
        answers=answers,
        max_false_merge_rate=max_false_merge_rate,
    )
    return replace(learned, crops_since=crops_since)


def _since(store: Store, cameras: Sequence[str], start: datetime, before: datetime) -> datetime | None:
    """From where on there are MAX_CROPS crops; None where there are no more. Those of one instant stay together."""
    with store.begin() as connection:
        last_out = connection.scalar(
            _ONE_TOO_MANY, {"cameras": list(cameras), "start": start, "before": before, "most": MAX_CROPS}
        )
    return None if last_out is None else last_out + timedelta(microseconds=1)


def learn_from(
    city: City,
    core: ReIDCore,
    settings: AssociationSettings,
    unit: str,
    tracklets: Tracklets,
    known: DistancePrior | None,
    source: str,
    on_step: Callable[[str], None] = lambda _: None,
    *,
    answers: Answers | None = None,
    max_false_merge_rate: float = MAX_FALSE_MERGE_RATE,
) -> Learned:
    """The calibrations of the unit and all below it from the tracklets of its cameras.

    known: the model's prior. source: names the tracklets. answers: about them.
    """
    answers = answers or Answers()
    units = [one.code for one in city.units if is_within(one.code, unit)]
    on_step(f"{len(tracklets.seen)} tracklets")
    least = _least(core, tracklets.halves)
    remembered = RememberedDistances(core)
    rehearsal = Rehearsal(city, remembered, settings, tracklets.seen)
    below: Versions = tracklets.versions
    fit: LevelFit | None = None
    found: dict[Level, LevelCalibration] = {}
    why_not: dict[Level, str] = {}
    overlaps: list[tuple[int, int]] | None = None
    for level in UPWARD[1 : UPWARD.index(level_of(unit)) + 1]:
        of_level = [code for code in units if level_of(code) is level]
        children = sorted(code for code in units if parent_of(code) in set(of_level))
        lookback_s = max_lookback_s(settings.horizon_s(level))
        guess = nothing_joined(level)
        if fit is not None:
            guess = at_operating_point(fit.calibration, fit.calibration.join_log_odds + _FIRST_GUESS)
            guess = guess.model_copy(update={"level": level, "transit": None})
        result: LevelFit | str = "nothing to compare"
        for number in range(1, _PASSES + 1):
            sampler = PairSampler(remembered, children, rehearsal.geometry(unit), rehearsal.geometry, tracklets.seen)
            resolved = {code: rehearsal.resolve(code, below, guess, sampler.observer(code)) for code in of_level}
            pairs = sampler.pairs()
            if pairs is None:
                break
            if overlaps is None:  # tracklets show them best
                overlaps = likely_overlaps(pairs)
            pairs = without(pairs, overlaps)
            group = {t: one.id for code in of_level for one in newest(resolved[code].versions) for t in one.tracklets}
            people = as_people(pairs, group) if number == _PASSES else None
            label = answers.labels(pairs.left, pairs.right)
            result = fit_unlabeled(level, pairs, people, children, lookback_s, least, fit, known, source, label)
            if isinstance(result, str):
                break
            guess = at_operating_point(result.calibration, _SECOND_GUESS)
        if isinstance(result, str):
            why_not[level] = result
            on_step(f"{level.value}: {result}")
            below = {code: rehearsal.resolve(code, below, None).versions for code in of_level}
            continue
        chosen = [one.join_log_odds for its, one in found.items() if its not in why_not]
        lowest = max([result.calibration.join_log_odds, *chosen])
        points = [point for point in OPERATING_POINTS if point >= lowest]
        guess, resolved, joins = _at_lowest_point(rehearsal, of_level, below, guess, points, max_false_merge_rate)
        wrong = keeps_rate(guess, joins, max_false_merge_rate)[1]
        if result.why_prior:
            why_not[level] = result.why_prior
        distances = np.concatenate([one.distances for one in resolved.values()])
        found[level] = guess.model_copy(update={"decisions": profile(distances) if len(distances) else None})
        fit = LevelFit(guess, result.estimate, result.why_prior)
        on_step(
            f"{level.value}: about {guess.positives} of {guess.pairs} compared pairs are one person; "
            f"{len(joins)} joins from log-odds {guess.join_log_odds:+.1f}, about {wrong:.1%} of them wrong"
        )
        below = {code: one.versions for code, one in resolved.items()}
        remembered.forget()
    codes = rehearsal.geometry(unit).cameras
    asked = tuple((codes[one], codes[other]) for one, other in overlaps or ())
    return Learned(found, why_not, len(tracklets.seen), answers, asked)


def _at_lowest_point(
    rehearsal: Rehearsal,
    units: Sequence[str],
    below: Versions,
    fitted: LevelCalibration,
    points: Sequence[float],
    max_false_merge_rate: float,
) -> tuple[LevelCalibration, dict[str, Rehearsed], Floats]:
    """The calibration at its operating point, the level resolved by it, and the log-odds (j,) of its joins."""

    @cache
    def resolved_at(point: float) -> dict[str, Rehearsed]:
        calibration = at_operating_point(fitted, point)
        return {code: rehearsal.resolve(code, below, calibration) for code in units}

    def joins_at(point: float) -> Floats:
        joins: Floats = logit(np.concatenate([one.joins for one in resolved_at(point).values()]))
        return joins

    point = lowest_kept(points, joins_at, lambda joins: keeps_rate(fitted, joins, max_false_merge_rate)[0])
    return at_operating_point(fitted, point), resolved_at(point), joins_at(point)


def _least(core: ReIDCore, halves: np.ndarray) -> float:
    """The median distance between the two halves of a tracklet, which pairs of one person elsewhere do not undercut."""
    if not len(halves):
        return 0.0
    some = halves[:: -(-len(halves) // 2_000)]
    return float(np.median(symmetric_distances(core, some[:, 0].astype(np.float64), some[:, 1].astype(np.float64))))


def nothing_joined(level: Level) -> LevelCalibration:
    """A calibration by which pairs are compared, and none is joined."""
    return LevelCalibration(
        level=level,
        terms=straight_line(1.0, -_NEVER),
        join_log_odds=_NEVER,
        review_log_odds=_NEVER,
        fitted_on="",
        pairs=0,
        positives=0,
    )
