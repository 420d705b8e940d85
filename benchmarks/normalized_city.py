"""A model beside its feature spaces in whole cities: F1 by level, and what applying a space costs.

    python -m benchmarks.normalized_city rendered --seeds 1-3 --calibrate 301,302,303
    python -m benchmarks.normalized_city simulated --seeds 11,12 --calibrate 101,102 --cameras 64 --hours 4 \\
        --basis none,tracklets

Each seed is a city in a data directory of its own. It is resolved with the packaged model; then with each space that
`models normalize` learns from the city's crops, promoted and with all windows decided anew. All are calibrated in the
same way, on labeled cities of other seeds; `--same-size`: on one simulated city of another seed with as many cameras
and hours as those that are judged, in place of 64 cameras and a day. Of a simulated city the cosine between the
camera shifts that were put in and those that were found is printed too, with the time that the space takes a crop.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import text

from benchmarks.cities import agreement, fill, seeds_of, simulated
from benchmarks.home import home
from pipeline.calibration.fit import calibrate, fit_city
from pipeline.calibration.labeled_city import all_units
from pipeline.city.watermarks import mark_everything
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, insert_calibration, use_model
from pipeline.resolve import embed_camera, resolve_unit
from pipeline.spaces.derived import normalize
from pipeline.spaces.learning import Unlabeled
from pipeline.store import Store
from pipeline.store.copy import copy_out
from pipeline.training.promotion import promote
from reid_core.files import open_space
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration
from schemas.levels import Level, level_of
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from synthetic.embedding_city.embedding import camera_shift
from synthetic.rendered_city import simulate_city

#: The spaces' names, and where the basis of each comes from.
SPACES: dict[str, Unlabeled] = {"space": "none", "space-basis": "tracklets"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("rendered", "simulated"))
    parser.add_argument("--seeds", default="1-3", help="such as 1-3 or 11,12")
    parser.add_argument("--calibrate", required=True, metavar="SEEDS", help="labeled cities, such as 301,302")
    parser.add_argument("--basis", default="none", help="of the spaces: none, tracklets, or both")
    parser.add_argument("--cameras", type=int, default=64, help="of a simulated city")
    parser.add_argument("--hours", type=float, default=1.0, help="of a simulated city")
    parser.add_argument("--same-size", action="store_true", help="calibrate on one such city")
    arguments = parser.parse_args()
    known: dict[str, Sequence[LevelCalibration]] = {}
    print("| seed | model | level | F1 | P / R | wrong joins |\n|---|---|---|---|---|---|", flush=True)
    for seed in seeds_of(arguments.seeds):
        with home() as folder, _city(folder, arguments, seed) as (store, base):
            cores: dict[int, ReIDCore] = {}

            def core(model: ModelRow, store: Store = store, cores: dict[int, ReIDCore] = cores) -> ReIDCore:
                if model.id not in cores:
                    cores[model.id] = open_core(store.settings, model.directory(store.settings))
                return cores[model.id]

            crops = CropStore(store.settings)
            for name, basis in {"base": None, **SPACES}.items():
                if basis is not None and basis not in arguments.basis.split(","):
                    continue
                model = base
                if basis is not None:
                    model = normalize(store, crops, core, base.name, "d1", name, basis).model
                # A space is calibrated alike whatever city it is of: in labeled cities that learn their own.
                if name not in known:
                    known[name] = _calibrations(arguments, model.directory(store.settings), basis)
                with store.begin() as connection:
                    for calibration in known[name]:
                        insert_calibration(connection, model.id, calibration)
                if basis is not None:
                    promote(store, crops, core, name, operator="benchmark", reason="a benchmark", force=True)
                    with store.begin() as connection:
                        connection.execute(text("UPDATE run SET decide_again = true WHERE superseded_at IS NULL"))
                for level, cells in _scores(store, core(model), model).items():
                    print(f"| {seed} | {name} | {level.value} | {' | '.join(cells)} |", flush=True)
                if basis is not None and arguments.kind == "simulated":
                    print(_shifts(store, model, arguments, seed), flush=True)


@contextmanager
def _city(folder: Path, arguments: argparse.Namespace, seed: int) -> Iterator[tuple[Store, ModelRow]]:
    """A store with the city, whose crops are embedded."""
    settings = Settings(home=folder)
    with Store.open(settings) as store:
        model = fill(store, _plan(arguments, seed) if arguments.kind == "simulated" else simulate_city(seed))
        core, crops = open_core(settings, model.directory(settings)), CropStore(settings)
        for unit in all_units(store):
            if level_of(unit) is Level.CAMERA:
                embed_camera(store, core, crops, model, unit)
        yield store, model


def _calibrations(
    arguments: argparse.Namespace, directory: Path, basis: Unlabeled | None
) -> Sequence[LevelCalibration]:
    """The calibrations of the model in the directory; basis: None if it is no space."""
    if not arguments.same_size:
        return calibrate(Settings(), directory, f"{arguments.kind}:{arguments.calibrate}").levels
    seed = int(arguments.calibrate)
    with home() as folder, _city(folder, arguments, seed) as (store, model):
        core = open_core(store.settings, model.directory(store.settings))
        if basis is not None:
            normalize(store, CropStore(store.settings), lambda _: core, model.name, "d1", "labeled", basis)
            model = use_model(store, "labeled")
            core = open_core(store.settings, model.directory(store.settings))
        for unit in all_units(store):
            if level_of(unit) is Level.CAMERA:
                resolve_unit(store, core, model, unit, settings=store.settings.association)
        return fit_city(store, core, model, f"simulated:{seed}").levels


def _plan(arguments: argparse.Namespace, seed: int) -> EmbeddingCitySettings:
    return simulated(arguments.cameras, arguments.hours, seed)


def _scores(store: Store, core: ReIDCore, model: ModelRow) -> dict[Level, list[str]]:
    """Resolves everything; the cells of each level's row."""
    with store.begin() as connection:
        mark_everything(connection)
    for unit in all_units(store):
        resolve_unit(store, core, model, unit, settings=store.settings.association)
    return agreement(store, model)


def _shifts(store: Store, model: ModelRow, arguments: argparse.Namespace, seed: int) -> str:
    """How well the space of a simulated city has found its cameras' shifts, and how long it takes a crop."""
    space = open_space(model.directory(store.settings), model.card)
    assert space is not None
    query = (
        "SELECT c.camera, e.v FROM crop c JOIN crop_embedding e ON e.crop_id = c.id AND e.model_id = :model "
        "ORDER BY c.key LIMIT 20000"
    )
    with store.begin() as connection:
        rows = copy_out(connection, query, {"model": model.features_id}, {"camera": "text", "v": "halfvec"})
    raw, cameras = np.asarray(rows["v"], np.float64), list(rows["camera"])
    began = time.perf_counter()
    space.apply(raw, cameras)
    took_us = (time.perf_counter() - began) / len(raw) * 1e6
    plan = _plan(arguments, seed)
    codes = embedding_city(plan).camera_codes
    there = [number for number, code in enumerate(codes) if code in space.units]
    found = np.stack([space.means[space.units.index(codes[number])] for number in there])
    put_in = np.stack([camera_shift(plan, number) for number in there]).astype(np.float64)
    cosine = (_unit(found - found.mean(axis=0)) * _unit(put_in - put_in.mean(axis=0))).sum(axis=1)
    return (
        f"seed {seed}: {len(there)} cameras; cosine between the shift put in and the one found {cosine.mean():.2f} "
        f"(lowest {cosine.min():.2f}); {took_us:.1f} us a crop"
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


if __name__ == "__main__":
    main()
