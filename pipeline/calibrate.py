"""Calibration: what a distance means at each level, learned from a city whose truth is known.

The labelled city is taken in by the real door and resolved in a database of its own, level by level. At each level the
pairs that would be compared give the logistic regression from distance to log-odds (Platt 1999); then the operating
point is the one at which the resolve itself, transit times and all, gives the best pairwise F1. Upward it never falls,
since false matches grow with the gallery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, text

from pipeline import watermarks
from pipeline.association.block import shortlist
from pipeline.association.geometry import geometry
from pipeline.association.nodes import Floats
from pipeline.association.score import prototype_distances
from pipeline.city import read_city
from pipeline.labelled_city import Report, all_units, labelled_city
from pipeline.models import ModelRow
from pipeline.resolve import resolve_unit
from pipeline.resolve.level import columns, node_of
from pipeline.resolve.read import read_children_now
from pipeline.scoring import Labelled, Pairwise, labelled_tracklets, nearest_neighbour, pairwise
from pipeline.store import Store
from reid_core.core import ReIDCore
from reid_core.verification import logistic
from schemas.cards import LevelCalibration
from schemas.errors import InputError
from schemas.levels import UPWARD, Level, level_of
from schemas.settings import Settings
from schemas.times import EPOCH

#: Operating points that are tried, as log-odds.
_TRIED = tuple(half / 2 for half in range(-3, 11))
#: Below the operating point by this much, a person is asked.
_REVIEW_BAND = 1.0
#: With fewer pairs of one person a level takes the fit of the level below.
ENOUGH = 20


@dataclass(frozen=True)
class Fitted:
    levels: tuple[LevelCalibration, ...]
    pairwise_f1: Mapping[Level, float]  # on the calibration data itself
    nearest_neighbour_distance: Mapping[Level, float]  # the baseline's best threshold on the same data


def calibrate(settings: Settings, model_directory: Path, source: str, report: Report = lambda _: None) -> Fitted:
    """Fits all levels of the model in `model_directory` on labelled data.

    `source`: `rendered:SEED,SEED,...` (simulated cities) or `market1501:DIR` (a data set in Market-1501 form, untimed,
    each camera in a building of its own on one street). `report` is told what goes on. Raises InputError where the
    source has no two sightings of one person to learn from.
    """
    with labelled_city(settings, model_directory, source, report) as (store, core, model):
        fitted: list[LevelCalibration] = []
        f1: dict[Level, float] = {}
        districts = sorted({unit.split("/")[0] for unit in all_units(store)})
        for level in UPWARD[1:]:
            units = [unit for unit in all_units(store) if level_of(unit) is level]
            fit = _fit(store, core, model, units, level, source) or _from_below(fitted, level)
            if fit is None:
                continue  # a data set may have nothing to compare within a building; the street's fit serves it below
            floor = max((below.join_log_odds for below in fitted), default=-np.inf)
            chosen, f1[level] = _operating_point(store, core, model, units, districts, fit, floor)
            fitted.append(chosen)
            report(f"{level.value}: operating point {chosen.join_log_odds:+.1f}, pairwise F1 {f1[level]:.3f}")
        if not fitted:
            raise InputError(f"{source}: no person is seen twice, so there is nothing to calibrate on")
        missing = [level for level in UPWARD[1:] if level not in {fit.level for fit in fitted}]
        fitted += [_relabelled(fitted[0], level) for level in missing]
        return Fitted(
            tuple(sorted(fitted, key=lambda fit: UPWARD.index(fit.level))),
            f1,
            _nearest_neighbour_distances([labelled_tracklets(store, d, model.id) for d in districts]),
        )


def write_calibrations(store: Store, model_id: int, fitted: Fitted) -> None:
    """Makes these the model's newest calibrations; everything resolved with it is then to be looked at again."""
    with store.begin() as connection:
        for fit in fitted.levels:
            _insert(connection, model_id, fit)
        watermarks.mark_everything(connection)
        connection.execute(
            text(
                "INSERT INTO audit (actor, action, details) VALUES (:actor, 'model.calibrate', "
                "jsonb_build_object('model', CAST(:model AS integer), 'fitted_on', CAST(:source AS text)))"
            ),
            {"actor": store.settings.operator, "model": model_id, "source": fitted.levels[0].fitted_on},
        )


# ---- the fit


def _fit(
    store: Store, core: ReIDCore, model: ModelRow, units: list[str], level: Level, source: str
) -> LevelCalibration | None:
    """Logistic regression on the pairs that would be compared; None with too few of one person."""
    distances: list[Floats] = []
    same: list[np.ndarray] = []
    association = store.settings.association
    city = read_city(store)
    for unit in units:
        with store.begin() as connection:
            children, tracklets = read_children_now(connection, unit, model.id)
            truth = _truths(connection, [child.id for child in children])
        if len(children) < 2:
            continue
        world = geometry(city, unit, association)
        nodes = columns([node_of(c.key, [c], c, None, fresh=True) for c in children], tracklets, world)
        left, right = shortlist(nodes, world, association.neighbours)
        labels = np.array([truth.get(child.id, f"unknown {child.id}") for child in children])
        distances.append(prototype_distances(core, nodes, left, right))
        same.append(labels[left] == labels[right])
    if not distances or np.concatenate(same).sum() < ENOUGH:
        return None
    distance, label = np.concatenate(distances), np.concatenate(same)
    slope, intercept = logistic(distance, label)
    return LevelCalibration(
        level=level,
        slope=slope,
        intercept=intercept,
        join_log_odds=0.0,
        review_log_odds=0.0,
        fitted_on=source[:500],
        pairs=len(label),
        positives=int(label.sum()),
    )


_TRUTHS = text(
    "SELECT n.id, mode() WITHIN GROUP (ORDER BY t.truth) AS truth FROM identity n "
    "CROSS JOIN unnest(n.tracklets) AS below(id) JOIN identity_member m ON m.identity_id = below.id "
    "JOIN crop_truth t ON t.crop_id = m.crop_id WHERE n.id = ANY(:ids) GROUP BY n.id"
)


def _truths(connection: Connection, ids: list[int]) -> dict[int, str]:
    return {row.id: row.truth for row in connection.execute(_TRUTHS, {"ids": ids})}


def _from_below(fitted: list[LevelCalibration], level: Level) -> LevelCalibration | None:
    return _relabelled(fitted[-1], level) if fitted else None


def _relabelled(fit: LevelCalibration, level: Level) -> LevelCalibration:
    """Another level's fit, where the data have too few pairs of this one."""
    said = f"{fit.fitted_on} (fit of the {fit.level.value} level, this one has too few pairs)"
    return fit.model_copy(update={"level": level, "fitted_on": said[:500]})


# ---- the operating point


def _operating_point(
    store: Store,
    core: ReIDCore,
    model: ModelRow,
    units: list[str],
    districts: list[str],
    fit: LevelCalibration,
    floor: float,
) -> tuple[LevelCalibration, float]:
    """The operating point, not below `floor`, at which resolving `units` gives the best F1; the strictest of equals.

    Leaves the units resolved at it.
    """
    best: tuple[float, LevelCalibration] | None = None
    for threshold in _TRIED:
        if threshold < floor:
            continue
        tried = fit.model_copy(update={"join_log_odds": threshold, "review_log_odds": threshold - _REVIEW_BAND})
        f1 = _f1_at(store, core, model, units, districts, tried)
        if best is None or f1 >= best[0]:
            best = (f1, tried)
    assert best is not None, "the floor is one of the points that were tried below"
    _f1_at(store, core, model, units, districts, best[1])
    return best[1], best[0]


def _f1_at(
    store: Store, core: ReIDCore, model: ModelRow, units: list[str], districts: list[str], tried: LevelCalibration
) -> float:
    with store.begin() as connection:
        _insert(connection, model.id, tried)
        for unit in units:
            watermarks.mark(connection, unit, EPOCH)
    for unit in units:
        resolve_unit(store, core, model, unit, settings=store.settings.association)
    total = Pairwise(0, 0, 0)
    for district in districts:
        labelled = labelled_tracklets(store, district, model.id)
        total += _at_level(labelled, tried.level)
    return total.f1


def _at_level(labelled: Labelled, level: Level) -> Pairwise:
    predicted = [held or f"alone {i}" for i, held in enumerate(labelled.identity[level])]
    return pairwise(predicted, labelled.truth, labelled.unit(level))


def _insert(connection: Connection, model_id: int, fit: LevelCalibration) -> None:
    connection.execute(
        text(
            "INSERT INTO calibration (model_id, level, parameters) "
            "VALUES (:model, CAST(:level AS unit_level), CAST(:parameters AS jsonb))"
        ),
        {"model": model_id, "level": fit.level.value, "parameters": fit.model_dump_json()},
    )


def _nearest_neighbour_distances(cities: list[Labelled]) -> dict[Level, float]:
    """The threshold at which the nearest-neighbour rule does best on these cities, for each level."""
    best: dict[Level, float] = {}
    for level in UPWARD[1:]:
        scores = []
        for most in np.round(np.geomspace(0.002, 0.6, 60), 5).tolist():
            total = Pairwise(0, 0, 0)
            for labelled in cities:
                unit = labelled.unit(level)
                total += pairwise(nearest_neighbour(labelled.mean, unit, most), labelled.truth, unit)
            scores.append((total.f1, -most))
        best[level] = -max(scores)[1]
    return best
