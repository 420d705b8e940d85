"""Fits a model's calibration and operating points on a city with known truth.

The labeled city is ingested and resolved in a database of its own, level by level. Learned from are the pairs that the
resolve itself compared, in every window, since the calibration will be applied to such pairs. Each level's operating
point is the one with the best pairwise F1 among those with a false-merge rate below the stated one. Operating points
never decrease upward, since the number of false merges grows with the gallery.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.accuracy.baselines import nearest_neighbor_distances
from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.metrics import Pairwise, pairwise
from pipeline.association.transit import max_lookback_s
from pipeline.calibration.drift import decision_distances, profile
from pipeline.calibration.labeled_city import all_units, labeled_city
from pipeline.calibration.labeled_pairs import ComparedPairs, PairCollector, tracklet_truths, wrong_joins
from pipeline.calibration.level_fit import fit_level
from pipeline.calibration.reliability import Joins, false_merges
from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.governance.audit import Action, audit
from pipeline.registry import ModelRow, insert_calibration
from pipeline.resolve import resolve_unit
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.arrays import Bools, Ints
from schemas.calibration import FalseMerges, LevelCalibration, straight_line
from schemas.city_file import City
from schemas.errors import InputError
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings
from schemas.times import EPOCH

#: Default of the stated false-merge rate: the largest share of the joins made that may join two people.
MAX_FALSE_MERGE_RATE = 0.05
#: Operating points to try, as log-odds, ascending.
_OPERATING_POINTS = tuple(half / 2 for half in range(-3, 11))
#: The search ends this far above the best operating point, log-odds: stricter ones find less and less.
_SEARCH_MARGIN = 1.0
#: Width of the review band below the operating point, log-odds.
_REVIEW_BAND = 1.0
#: The terms before anything is fitted: only very near pairs are joined, so that few identities mix people.
_INITIAL_TERMS = straight_line(20.0, 8.0)


@dataclass(frozen=True)
class Fitted:
    """A model's calibrations, and figures on the calibration data itself."""

    levels: tuple[LevelCalibration, ...]
    pairwise_f1: Mapping[Level, float]
    nearest_neighbor_distance: Mapping[Level, float]  # best threshold of the nearest-neighbor baseline


def calibrate(
    settings: Settings,
    model_directory: Path,
    source: str,
    on_step: Callable[[str], None] = lambda _: None,
    *,
    max_false_merge_rate: float = MAX_FALSE_MERGE_RATE,
) -> Fitted:
    """Calibrates all levels of the model in `model_directory` on labeled data. Takes minutes.

    source: `rendered:SEED,SEED,...` (simulated cities with pictures), `simulated:SEED,SEED,...` (embedding-level
    cities, for a model whose features come with the crops), `market1501:DIR` (a data set in Market-1501 form,
    untimed, each camera in a building of its own on one street) or `manifest:FILE` (crops with truth, time and track,
    in the city of the city.yaml beside it). max_false_merge_rate: largest share of the joins made
    that may join two people. on_step: called with a line about each step. Raises InputError if no person of the source
    is seen twice.
    """
    with labeled_city(settings, model_directory, source, on_step) as (store, core, model):
        return fit_city(store, core, model, source, on_step, max_false_merge_rate=max_false_merge_rate)


def fit_city(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    source: str,
    on_step: Callable[[str], None] = lambda _: None,
    *,
    max_false_merge_rate: float = MAX_FALSE_MERGE_RATE,
) -> Fitted:
    """As `calibrate`, on the store's labeled city, whose cameras are resolved; what is above them is resolved anew."""
    with store.begin() as connection:
        truth = tracklet_truths(connection)
    fit = _CityFit(store, core, model, read_city(store), truth, source, max_false_merge_rate, on_step)
    levels: list[LevelCalibration] = []
    f1: dict[Level, float] = {}
    for level in UPWARD[1:]:
        found = fit.calibrate_level(level, levels)
        if found is not None:
            levels.append(found[0])
            f1[level] = found[1]
    if not levels:
        raise InputError(f"{source}: no person is seen twice, so there is nothing to calibrate on")
    missing = [level for level in UPWARD[1:] if level not in {known.level for known in levels}]
    levels += [_borrowed(levels[0], level) for level in missing]
    nearest: dict[Level, float] = {}
    if not source.startswith("simulated"):  # too many tracklets to compare them all
        nearest = nearest_neighbor_distances(
            [labeled_tracklets(store, district, model.id) for district in fit.districts]
        )
    return Fitted(tuple(sorted(levels, key=lambda known: UPWARD.index(known.level))), f1, nearest)


def write_calibrations(store: Store, model_id: int, fitted: Fitted) -> None:
    """Makes these the model's newest calibrations, and marks everything to be resolved again."""
    with store.begin() as connection:
        for calibration in fitted.levels:
            insert_calibration(connection, model_id, calibration)
        watermarks.mark_everything(connection)
        details = {"model": model_id, "fitted_on": fitted.levels[0].fitted_on}
        audit(connection, store.settings.operator, Action.MODEL_CALIBRATE, details=details)


@dataclass(frozen=True)
class _CityFit:
    """The fit of one level after the other in a labeled city."""

    store: Store
    core: ReIDCore
    model: ModelRow
    city: City
    truth: Mapping[int, str]  # tracklet id -> person; resolving levels above the camera keeps the tracklets
    source: str
    max_false_merge_rate: float
    on_step: Callable[[str], None]

    @property
    def districts(self) -> list[str]:
        return sorted({unit.code for unit in self.city.units if unit.level is Level.DISTRICT})

    def calibrate_level(self, level: Level, below: Sequence[LevelCalibration]) -> tuple[LevelCalibration, float] | None:
        """The level's calibration and its pairwise F1 on the data; leaves its units resolved with it.

        below: the calibrations of the levels below. With too few pairs of its own the level takes over the newest of
        them; None if there is none.
        """
        units = [code for code in all_units(self.store) if level_of(code) is level]
        children = sorted(unit.code for unit in self.city.units if parent_of(unit.code) in set(units))
        lookback_s = max_lookback_s(self.store.settings.association.horizon_s(level))
        found: LevelCalibration | None = None
        # The first pass compares identities joined by an initial guess, the second those joined by the first fit.
        for _ in range(2):
            guess = found or LevelCalibration(
                level=level,
                terms=below[-1].terms if below else _INITIAL_TERMS,
                join_log_odds=2.0,
                review_log_odds=1.0,
                fitted_on="",
                pairs=0,
                positives=0,
            )
            pairs = self._compare(guess, units, children)
            found = None if pairs is None else fit_level(level, pairs, children, lookback_s, self.source)
            if pairs is None or found is None:
                found = _borrowed(below[-1], level) if below else None
                break
            self.on_step(f"{level.value}: {len(pairs)} pairs compared, {pairs.same.sum()} of one person")
        if found is None:
            return None
        least = max((calibration.join_log_odds for calibration in below), default=-np.inf)
        chosen, f1 = self._choose_operating_point(found, units, least)
        rate = "" if chosen.false_merges is None else f", {chosen.false_merges.rate:.1%} of the joins wrong"
        self.on_step(f"{level.value}: operating point {chosen.join_log_odds:+.1f}, pairwise F1 {f1:.3f}{rate}")
        return chosen, f1

    def _compare(self, guess: LevelCalibration, units: Sequence[str], children: Sequence[str]) -> ComparedPairs | None:
        """The pairs that a resolve with this calibration compares; None if there are none."""
        collector = PairCollector(children, self.truth)
        self._resolve(guess, units, collector)
        return collector.pairs()

    def _resolve(
        self, calibration: LevelCalibration, units: Sequence[str], collector: PairCollector | None = None
    ) -> None:
        districts = self.districts
        with self.store.begin() as connection:
            insert_calibration(connection, self.model.id, calibration)
            for unit in units:
                watermarks.mark(connection, unit, EPOCH)
        for unit in units:
            observe = None if collector is None else collector.observer(unit, districts.index(unit.split("/")[0]))
            settings = self.store.settings.association
            resolve_unit(self.store, self.core, self.model, unit, settings=settings, observe=observe)

    def _choose_operating_point(
        self, fit: LevelCalibration, units: Sequence[str], least: float
    ) -> tuple[LevelCalibration, float]:
        """The operating point of at least `least` with the best F1 among those that keep the false-merge rate.

        Of equals the strictest; where none keeps the rate, the one with the lowest rate. Returns the calibration with
        it and its F1, and leaves the units resolved with it.
        """
        best: tuple[tuple[bool, float, float], LevelCalibration, float] | None = None
        for threshold in _OPERATING_POINTS:
            if threshold < least:
                continue
            tried = fit.model_copy(update={"join_log_odds": threshold, "review_log_odds": threshold - _REVIEW_BAND})
            self._resolve(tried, units)
            f1, merges = self._evaluate(tried.level, threshold)
            tried = tried.model_copy(update={"false_merges": merges})
            keeps_rate = merges.rate <= self.max_false_merge_rate
            rank = (keeps_rate, f1 if keeps_rate else -merges.rate, threshold)
            if best is None or rank >= best[0]:
                best = rank, tried, f1
            elif best[0][0] and threshold >= best[0][2] + _SEARCH_MARGIN:
                break
        assert best is not None, "`least` is one of the operating points"
        self._resolve(best[1], units)
        with self.store.begin() as connection:
            distances = decision_distances(connection, fit.level, self.model.id)
        return best[1].model_copy(update={"decisions": profile(distances) if len(distances) else None}), best[2]

    def _evaluate(self, level: Level, threshold: float) -> tuple[float, FalseMerges]:
        """Pairwise F1 over all tracklets of the level's units, and the false merges among its joins."""
        total = Pairwise(0, 0, 0)
        wrong: list[Bools] = []
        group: list[Ints] = []
        for number, district in enumerate(self.districts):
            labeled = labeled_tracklets(self.store, district, self.model.id)
            predicted, truth = (labeled.episodes(level, groups) for groups in (labeled.identity[level], labeled.truth))
            total += pairwise(predicted, truth, labeled.unit(level))
            district_wrong, person = wrong_joins(self.store, district, level, self.truth)
            wrong.append(district_wrong)
            group.append(person * len(self.districts) + number)
        return total.f1, false_merges(Joins(threshold, np.concatenate(wrong), np.concatenate(group)))


def _borrowed(calibration: LevelCalibration, level: Level) -> LevelCalibration:
    """Another level's calibration for a level with too few pairs, without the figures measured there."""
    fitted_on = f"{calibration.fitted_on} (fit of the {calibration.level.value} level, this one has too few pairs)"
    measured = dict.fromkeys(("false_merges", "reliability", "decisions"))
    return calibration.model_copy(update={"level": level, "fitted_on": fitted_on[:500], **measured})
