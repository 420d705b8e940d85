"""Calibration: what a distance and a time between mean at each level, learned from a city whose truth is known.

The labeled city is taken in by the real door and resolved in a database of its own, level by level. What is learned
from are the pairs that the resolve itself compared, in every window, for these are what the calibration will be asked
about: from their times the transit times, from distance, transit and weight of evidence the log-odds. Then the
operating point is the one with the best pairwise F1 among those at which few enough of the joins made are wrong.
Upward it never falls, since false matches grow with the gallery.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from pipeline.accuracy.labeled import Labeled, labeled_tracklets, nearest_in_unit
from pipeline.accuracy.metrics import Pairwise, pairwise
from pipeline.association.transit import prior
from pipeline.association.transit_learning import learn
from pipeline.calibration.decision_distances import decision_distances
from pipeline.calibration.labeled_city import Report, all_units, labeled_city
from pipeline.calibration.labeled_pairs import Compared, Observed, tracklet_truths, wrong_joins
from pipeline.calibration.reliability import Joins, false_merges, judge, profile
from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, insert_calibration
from pipeline.resolve import resolve_unit
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.arrays import Bools, Floats, Ints
from schemas.calibration import FalseMerges, LevelCalibration, TransitTimes, straight_line
from schemas.city_file import City
from schemas.errors import InputError
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings
from schemas.times import EPOCH

#: Operating points that are tried, as log-odds.
_TRIED = tuple(half / 2 for half in range(-3, 11))
#: Past the best operating point by this much, further ones are not tried.
_PAST = 1.0
#: Below the operating point by this much, a person is asked.
_REVIEW_BAND = 1.0
#: With fewer pairs of one person a level takes the fit of the level below.
ENOUGH = 20
#: Of the joins made, at most this share may join two people, unless another is stated.
FALSE_MERGES = 0.05
#: Before anything is learned of a level: joined is what is very near, so that the pairs compared are of few mixtures.
_FIRST = straight_line(20.0, 8.0)


@dataclass(frozen=True)
class Fitted:
    levels: tuple[LevelCalibration, ...]
    pairwise_f1: Mapping[Level, float]  # on the calibration data itself
    nearest_neighbor_distance: Mapping[Level, float]  # the baseline's best threshold on the same data


def calibrate(
    settings: Settings,
    model_directory: Path,
    source: str,
    report: Report = lambda _: None,
    *,
    most_wrong: float = FALSE_MERGES,
) -> Fitted:
    """Fits all levels of the model in `model_directory` on labeled data.

    `source`: `rendered:SEED,SEED,...` (simulated cities), `simulated:SEED,SEED,...` (embedding-level cities, for a
    model whose features come with the crops) or `market1501:DIR` (a data set in Market-1501 form, untimed, each camera
    in a building of its own on one street). `most_wrong`: the stated false-merge rate, the largest share of the joins
    made that may join two people. `report` is told what goes on. Raises InputError where the source has no two
    sightings of one person to learn from.
    """
    with labeled_city(settings, model_directory, source, report) as (store, core, model):
        with store.begin() as connection:
            truth = tracklet_truths(connection)
        levels = _Levels(store, core, model, read_city(store), truth, source, most_wrong, report)
        fitted: list[LevelCalibration] = []
        f1: dict[Level, float] = {}
        for level in UPWARD[1:]:
            found = levels.fit(level, fitted)
            if found is not None:
                fitted.append(found[0])
                f1[level] = found[1]
        if not fitted:
            raise InputError(f"{source}: no person is seen twice, so there is nothing to calibrate on")
        missing = [level for level in UPWARD[1:] if level not in {fit.level for fit in fitted}]
        fitted += [_relabeled(fitted[0], level) for level in missing]
        return Fitted(
            tuple(sorted(fitted, key=lambda fit: UPWARD.index(fit.level))),
            f1,
            {}
            if source.startswith(
                "simulated"
            )  # too many to compare all; pipeline.accuracy.baselines has a search of its own
            else _nearest_neighbor_distances([labeled_tracklets(store, d, model.id) for d in levels.districts]),
        )


def write_calibrations(store: Store, model_id: int, fitted: Fitted) -> None:
    """Makes these the model's newest calibrations; everything resolved with it is then to be looked at again."""
    with store.begin() as connection:
        for fit in fitted.levels:
            insert_calibration(connection, model_id, fit)
        watermarks.mark_everything(connection)
        details = {"model": model_id, "fitted_on": fitted.levels[0].fitted_on}
        audit(connection, store.settings.operator, Action.MODEL_CALIBRATE, details=details)


@dataclass(frozen=True)
class _Levels:
    store: Store
    core: ReIDCore
    model: ModelRow
    city: City
    truth: Mapping[int, str]  # of tracklets, by their ids; resolving levels above the camera changes none
    source: str
    most_wrong: float
    report: Report

    @property
    def districts(self) -> list[str]:
        return sorted({unit.code for unit in self.city.units if unit.level is Level.DISTRICT})

    def fit(self, level: Level, below: Sequence[LevelCalibration]) -> tuple[LevelCalibration, float] | None:
        """The level's calibration and its pairwise F1 on the data; leaves its units resolved with it.

        None where there is nothing to compare at the level, nor a fit below to take.
        """
        units = [code for code in all_units(self.store) if level_of(code) is level]
        children = sorted(unit.code for unit in self.city.units if parent_of(unit.code) in set(units))
        looked_s = float(min(self.store.settings.association.horizon_s(level), 86_400))
        found: LevelCalibration | None = None
        # The first pass compares identities that joins by a guess have made; the second those of the fit.
        for _ in range(2):
            guess = found or LevelCalibration(
                level=level,
                terms=below[-1].terms if below else _FIRST,
                join_log_odds=2.0,
                review_log_odds=1.0,
                fitted_on="",
                pairs=0,
                positives=0,
            )
            pairs = self._compare(guess, units, children)
            if pairs is None or min(pairs.same.sum(), (~pairs.same).sum()) < ENOUGH:
                found = _relabeled(below[-1], level) if below else None
                break
            found = _fitted(level, pairs, children, looked_s, self.source)
            self.report(f"{level.value}: {len(pairs)} pairs compared, {pairs.same.sum()} of one person")
        if found is None:
            return None
        floor = max((fit.join_log_odds for fit in below), default=-np.inf)
        chosen, f1 = self._operating_point(found, units, floor)
        rate = "" if chosen.false_merges is None else f", {chosen.false_merges.rate:.1%} of the joins wrong"
        self.report(f"{level.value}: operating point {chosen.join_log_odds:+.1f}, pairwise F1 {f1:.3f}{rate}")
        return chosen, f1

    def _compare(self, guess: LevelCalibration, units: Sequence[str], children: Sequence[str]) -> Compared | None:
        observed = Observed(children, self.truth)
        self._resolve(guess, units, observed)
        return observed.all()

    def _resolve(self, tried: LevelCalibration, units: Sequence[str], observed: Observed | None = None) -> None:
        districts = self.districts
        with self.store.begin() as connection:
            insert_calibration(connection, self.model.id, tried)
            for unit in units:
                watermarks.mark(connection, unit, EPOCH)
        for unit in units:
            resolve_unit(
                self.store,
                self.core,
                self.model,
                unit,
                settings=self.store.settings.association,
                observe=None if observed is None else observed.observer(unit, districts.index(unit.split("/")[0])),
            )

    def _operating_point(
        self, fit: LevelCalibration, units: Sequence[str], floor: float
    ) -> tuple[LevelCalibration, float]:
        """The operating point, not below `floor`, with the best F1 of those that keep the stated false-merge rate.

        The strictest of equals; where none keeps the rate, the one with the least. Leaves the units resolved at it.
        """
        best: tuple[tuple[bool, float, float], LevelCalibration, float] | None = None
        for threshold in _TRIED:
            if threshold < floor:
                continue
            tried = fit.model_copy(update={"join_log_odds": threshold, "review_log_odds": threshold - _REVIEW_BAND})
            self._resolve(tried, units)
            f1, merges = self._judged(tried.level, threshold)
            tried = tried.model_copy(update={"false_merges": merges})
            keeps = merges.rate <= self.most_wrong
            worth = (keeps, f1 if keeps else -merges.rate, threshold)
            if best is None or worth >= best[0]:
                best = worth, tried, f1
            elif best[0][0] and threshold >= best[0][2] + _PAST:
                break  # stricter still finds less and less
        assert best is not None, "the floor is one of the points that were tried below"
        self._resolve(best[1], units)
        with self.store.begin() as connection:
            decided = decision_distances(connection, fit.level, self.model.id)
        return best[1].model_copy(update={"decisions": profile(decided) if len(decided) else None}), best[2]

    def _judged(self, level: Level, threshold: float) -> tuple[float, FalseMerges]:
        """Pairwise F1 over all tracklets of the level's units, and how many of the joins made are wrong."""
        total = Pairwise(0, 0, 0)
        wrong: list[Bools] = []
        group: list[Ints] = []
        for number, district in enumerate(self.districts):
            labeled = labeled_tracklets(self.store, district, self.model.id)
            found, truth = (labeled.of_task(level, its) for its in (labeled.identity[level], labeled.truth))
            total += pairwise(found, truth, labeled.unit(level))
            its_wrong, its_person = wrong_joins(self.store, district, level, self.truth)
            wrong.append(its_wrong)
            group.append(its_person * len(self.districts) + number)
        return total.f1, false_merges(Joins(threshold, np.concatenate(wrong), np.concatenate(group)))


def _fitted(
    level: Level, pairs: Compared, children: Sequence[str], looked_s: float, source: str
) -> LevelCalibration | None:
    """Terms and transit times from all pairs; judged on one half of the cities by the fit of the other."""
    times = _transit(pairs, children, looked_s)
    terms = pairs.fit(pairs.transit(times, children))
    if terms is None:
        return None
    districts = np.unique(pairs.district)
    judged = None
    if len(districts) > 1:
        first = np.isin(pairs.district, districts[: len(districts) // 2])
        parts = [_cross(pairs.take(a), pairs.take(~a), children, looked_s) for a in (first, ~first)]
        if all(part is not None for part in parts):
            known = [part for part in parts if part is not None]
            judged = judge(*(np.concatenate(column) for column in zip(*known, strict=True)))
    return LevelCalibration(
        level=level,
        terms=terms,
        transit=_without_routes(times),
        join_log_odds=0.0,
        review_log_odds=0.0,
        fitted_on=source[:500],
        pairs=len(pairs),
        positives=int(pairs.same.sum()),
        reliability=judged,
    )


def _cross(fitted: Compared, fresh: Compared, children: Sequence[str], looked_s: float) -> tuple[Floats, Bools] | None:
    """Probabilities and truth of the fresh pairs, by a fit on the others."""
    times = _transit(fitted, children, looked_s)
    terms = fitted.fit(fitted.transit(times, children))
    if terms is None:
        return None
    return expit(fresh.log_odds(terms, fresh.transit(times, children))), fresh.same


def _transit(pairs: Compared, children: Sequence[str], looked_s: float) -> TransitTimes:
    """The times of labeled pairs; what is believed before, where nothing has a time."""
    timed = pairs.take(pairs.timed)
    if not timed.same.any():
        return prior(looked_s)
    return learn(
        looked_s,
        children,
        timed.left_child,
        timed.right_child,
        timed.way_s,
        timed.gap_s,
        timed.same,
        most_wrong=0.0,
    )


def _without_routes(times: TransitTimes) -> TransitTimes:
    """Without the routes of the labeled city: another city's have other codes."""
    return times.model_copy(update={"routes": ()})


def _relabeled(fit: LevelCalibration, level: Level) -> LevelCalibration:
    """Another level's fit, where the data have too few pairs of this one; what was measured there stays there."""
    said = f"{fit.fitted_on} (fit of the {fit.level.value} level, this one has too few pairs)"
    measured = dict.fromkeys(("false_merges", "reliability", "decisions"))
    return fit.model_copy(update={"level": level, "fitted_on": said[:500], **measured})


def _nearest_neighbor_distances(cities: list[Labeled]) -> dict[Level, float]:
    """The threshold at which the nearest-neighbor rule does best on these cities, for each level."""
    best: dict[Level, float] = {}
    for level in UPWARD[1:]:
        units = [labeled.unit(level) for labeled in cities]
        cuts = [nearest_in_unit(labeled.mean, unit) for labeled, unit in zip(cities, units, strict=True)]
        scores = []
        for most in np.round(np.geomspace(0.002, 0.6, 60), 5).tolist():
            total = Pairwise(0, 0, 0)
            for labeled, unit, cut in zip(cities, units, cuts, strict=True):
                found, truth = (labeled.of_task(level, its) for its in (cut(most), labeled.truth))
                total += pairwise(found, truth, unit)
            scores.append((total.f1, -most))
        best[level] = -max(scores)[1]
    return best
