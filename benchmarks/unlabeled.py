"""The calibration without labels beside that with labels, on cities whose truth neither was learned from.

    python -m benchmarks.unlabeled rendered --seeds 1-10
    python -m benchmarks.unlabeled simulated --seeds 11,12 --cameras 64 --hours 4

Each seed is a city in a data directory of its own, resolved twice with the packaged model: with the calibration of its
card (labels of other cities), and with the one learned from the city's own crops as `models calibrate --on-city` does.
Prints for each level: pairwise F1, precision and recall, the wrong joins among the joins, and the expected calibration
error of compared pairs with a probability of 0.05 to 0.95. A level with too little to learn from keeps its prior, which
is the card's calibration here, and is marked.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scipy.special import expit

from benchmarks.cities import agreement, fill, seeds_of, simulated
from benchmarks.home import home
from pipeline.association.transit import max_lookback_s, prior_times
from pipeline.calibration.labeled_city import all_units
from pipeline.calibration.labeled_pairs import PairCollector, tracklet_truths
from pipeline.calibration.reliability import judge
from pipeline.calibration.unlabeled.versions import learn_now
from pipeline.city import watermarks
from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow
from pipeline.resolve import embed_camera, resolve_unit
from pipeline.resolve.calibrations import current_calibrations
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("rendered", "simulated"))
    parser.add_argument("--seeds", default="1-10", help="such as 1-10 or 11,12")
    parser.add_argument("--cameras", type=int, default=64, help="of a simulated city")
    parser.add_argument("--hours", type=float, default=1.0, help="of a simulated city")
    arguments = parser.parse_args()
    print(
        "| seed | level | | F1 | P / R | wrong joins | ECE in the middle |\n|---|---|---|---|---|---|---|", flush=True
    )
    for seed in seeds_of(arguments.seeds):
        with home() as folder, _city(folder, arguments, seed) as (store, core, model):
            for name in ("labels", "without"):
                learned = UPWARD
                if name == "without":
                    learned = learn_now(store, core, CropStore(store.settings), model, "d1")[0].levels
                with store.begin() as connection:
                    watermarks.mark_everything(connection)
                for level, cells in _scores(store, core, model).items():
                    by = name if level in learned else "prior: labels"
                    print(f"| {seed} | {level} | {by} | {' | '.join(cells)} |", flush=True)


@contextmanager
def _city(folder: Path, arguments: argparse.Namespace, seed: int) -> Iterator[tuple[Store, ReIDCore, ModelRow]]:
    """A store with the city, whose cameras are resolved."""
    settings = Settings(home=folder)
    with Store.open(settings) as store:
        crops = CropStore(settings)
        plan = simulated(arguments.cameras, arguments.hours, seed) if arguments.kind == "simulated" else None
        model = fill(store, seed, plan)
        core = open_core(settings, model.directory(settings))
        for unit in all_units(store):
            if level_of(unit) is Level.CAMERA:
                embed_camera(store, core, crops, model, unit)
                resolve_unit(store, core, model, unit, settings=settings.association)
        yield store, core, model


def _scores(store: Store, core: ReIDCore, model: ModelRow) -> dict[Level, list[str]]:
    """Resolves the district, level by level; the cells of each level's row."""
    city, settings = read_city(store), store.settings.association
    with store.begin() as connection:
        truth = tracklet_truths(connection)
        calibrations = current_calibrations(connection, model.id, "d1")
    errors = {}
    for level in UPWARD[1:]:
        units = [code for code in all_units(store) if level_of(code) is level]
        children = sorted(unit.code for unit in city.units if parent_of(unit.code) in set(units))
        collector = PairCollector(children, truth)
        for unit in units:
            resolve_unit(store, core, model, unit, settings=settings, observe=collector.observer(unit, 0))
        errors[level] = _error(collector, children, calibrations, level, max_lookback_s(settings.horizon_s(level)))
    return {level: [*cells, errors[level]] for level, cells in agreement(store, model).items()}


def _error(
    collector: PairCollector,
    children: list[str],
    calibrations: Mapping[Level, LevelCalibration],
    level: Level,
    lookback_s: float,
) -> str:
    calibration, pairs = calibrations.get(level), collector.pairs()
    if calibration is None or pairs is None:
        return ""
    transit = pairs.transit(calibration.transit or prior_times(lookback_s), children)
    middle = judge(expit(pairs.log_odds(calibration.terms, transit)), pairs.same).middle
    return f"{middle.ece:.3f} of {middle.pairs}"


if __name__ == "__main__":
    main()
