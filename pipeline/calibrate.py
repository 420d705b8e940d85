"""Calibration: what a distance means at each level, learned from a city whose truth is known.

The labelled city is taken in by the real door and resolved in a database of its own, level by level. At each level the
pairs that would be compared give the logistic regression from distance to log-odds (Platt 1999); then the operating
point is the one at which the resolve itself, transit times and all, gives the best pairwise F1. Upward it never falls,
since false matches grow with the gallery.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sqlalchemy import Connection, text

from pipeline.association.block import shortlist
from pipeline.association.geometry import geometry
from pipeline.association.nodes import Floats
from pipeline.association.score import prototype_distances
from pipeline.city import read_city, read_city_file, store_city
from pipeline.crops import CropStore
from pipeline.ingest.dataset import ingest_dataset
from pipeline.ingest.manifest import ingest_manifest
from pipeline.models import ModelRow, register_model, use_model
from pipeline.resolve import embed_camera, mark_everything, resolve_unit, units_within, watermarks
from pipeline.resolve.level import columns, node_of
from pipeline.resolve.read import read_children_now
from pipeline.scoring import Labelled, Pairwise, labelled_tracklets, nearest_neighbour, pairwise
from pipeline.store import Store
from reid_core.core import ReIDCore, open_core
from schemas.cards import LevelCalibration
from schemas.city import City, Unit, Walk
from schemas.errors import InputError
from schemas.levels import UPWARD, Level, level_of
from schemas.settings import Settings
from schemas.times import EPOCH
from synthetic.city import simulate_city, write_city

Report = Callable[[str], None]

#: Operating points that are tried, as log-odds.
_TRIED = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
#: Below the operating point by this much, a person is asked.
_REVIEW_BAND = 1.0
#: With fewer pairs of one person a level takes the fit of the level below.
_ENOUGH = 20


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
    with _labelled_city(settings, model_directory, source, report) as (store, core, model):
        fitted: list[LevelCalibration] = []
        f1: dict[Level, float] = {}
        districts = sorted({unit.split("/")[0] for unit in _units(store)})
        for level in UPWARD[1:]:
            units = [unit for unit in _units(store) if level_of(unit) is level]
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
        mark_everything(connection)
        connection.execute(
            text(
                "INSERT INTO audit (actor, action, details) VALUES (:actor, 'model.calibrate', "
                "jsonb_build_object('model', CAST(:model AS integer), 'fitted_on', CAST(:source AS text)))"
            ),
            {"actor": store.settings.operator, "model": model_id, "source": fitted.levels[0].fitted_on},
        )


# ---- the labelled city


@contextmanager
def _labelled_city(
    settings: Settings, model_directory: Path, source: str, report: Report
) -> Iterator[tuple[Store, ReIDCore, ModelRow]]:
    """A database of its own, with the labelled crops taken in and grouped into tracklets; gone afterwards."""
    kind, _, what = source.partition(":")
    if kind not in ("rendered", "market1501") or not what:
        raise InputError(f"{source[:80]!r}: calibrate on rendered:SEED,SEED,... or market1501:DIR")
    # Not below the user's own folders: the embedded server may run as another user, who has to reach it.
    home = Path(tempfile.mkdtemp(prefix="urban-reid-calibrate-"))
    home.chmod(0o711)
    try:
        own = settings.model_copy(update={"home": home, "database_url": None})
        with Store.open(own, "urban-reid models calibrate") as store:
            crops = CropStore(own)
            if kind == "rendered":
                _take_in_rendered(store, crops, _seeds(what), home, report)
            else:
                _take_in_market(store, crops, Path(what), report)
            register_model(store, own, model_directory, "calibrated")
            model = use_model(store, "calibrated")
            core = open_core(own, model.directory(own))
            cameras = [unit for unit in _units(store) if level_of(unit) is Level.CAMERA]
            for number, camera in enumerate(cameras, 1):
                embed_camera(store, core, crops, model, camera)
                resolve_unit(store, core, model, camera, settings=own.association)
                report(f"camera {number} of {len(cameras)}: features and tracklets")
            yield store, core, model
    finally:
        shutil.rmtree(home)


def _seeds(what: str) -> list[int]:
    try:
        return [int(seed) for seed in what.split(",")]
    except ValueError:
        raise InputError(f"rendered:{what[:60]}: seeds are whole numbers, as in rendered:101,102") from None


def _take_in_rendered(store: Store, crops: CropStore, seeds: list[int], home: Path, report: Report) -> None:
    """Each seed's city becomes a district."""
    units: list[Unit] = []
    walks: list[Walk] = []
    manifests: list[Path] = []
    for seed in seeds:
        folder = home / f"rendered-{seed}"
        report(f"rendering city {seed}")
        manifest = write_city(simulate_city(seed), folder)
        for file in (manifest, folder / "city.yaml"):
            file.write_text(file.read_text(encoding="utf-8").replace('"d1', f'"d{seed}'), encoding="utf-8")
        city = read_city_file(folder / "city.yaml")
        units += city.units
        walks += city.walks
        manifests.append(manifest)
    store_city(store, City(units=tuple(units), walks=tuple(walks)))
    for manifest in manifests:
        ingest_manifest(store, crops, manifest)


def _take_in_market(store: Store, crops: CropStore, directory: Path, report: Report) -> None:
    report(f"taking in {directory}")
    names = {part for file in directory.glob("*/*.jpg") for part in file.name.split("_")[1:2] if part.startswith("c")}
    cameras = sorted({name.split("s")[0] for name in names})
    units = [{"code": "d1"}, {"code": "d1/s1"}]
    for camera in cameras:
        units += [{"code": f"d1/s1/b-{camera}"}, {"code": f"d1/s1/b-{camera}/{camera}", "source": camera}]
    splits = ["bounding_box_train"] if (directory / "bounding_box_train").is_dir() else None
    city = City.model_validate({"units": units})
    ingest_dataset(store, crops, directory, "market1501", city, "none", splits=splits)


def _units(store: Store) -> list[str]:
    districts = [unit.code for unit in read_city(store).units if level_of(unit.code) is Level.DISTRICT]
    return [code for district in districts for code in units_within(store, district)]


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
    if not distances or np.concatenate(same).sum() < _ENOUGH:
        return None
    distance, label = np.concatenate(distances), np.concatenate(same)
    slope, intercept = _logistic(distance, label)
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


def _logistic(distance: Floats, same: np.ndarray) -> tuple[float, float]:
    """(slope, intercept) of log-odds = intercept - slope * distance, by maximum likelihood; slope above zero."""
    centre, scale = distance.mean(), distance.std() or 1.0
    x, y = (distance - centre) / scale, same.astype(float)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        steepness, at_centre = parameters
        odds = at_centre - steepness * x
        excess = expit(odds) - y
        # The small penalty keeps data that a threshold parts perfectly from an infinite slope.
        value = np.sum(np.logaddexp(0, odds) - y * odds) + 0.05 * steepness**2
        return float(value), np.array([-np.sum(excess * x) + 0.1 * steepness, np.sum(excess)])

    bounds = [(1e-3, None), (None, None)]  # a larger distance never speaks for the same person
    steepness, at_centre = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=bounds).x
    slope = float(steepness / scale)
    return slope, float(at_centre + slope * centre)


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
