"""Identities of real people with camera means and a basis, beside those with raw features.

    python -m benchmarks.feature_space_city --data DIR --model FILE --convention JSON [--manifest FILE ...] [--held-out]
        [--calibrate manifest:FILE]

DIR is a data set of two cameras in Market-1501 form; `--convention` is that of benchmarks.feature_space. Judged are its
test people, each crop a tracklet without a time, camera 1 and camera 2 in two buildings of one street; and the people
of each manifest, whose `city.yaml` lies beside it. `--held-out`: 100 of the training people in place of the test
people, to choose settings with.

Four models: the embedder; with means of the judged cameras, learned from their crops without labels; with a basis
besides, from training people; and with a basis from the judged tracklets in its place. Every fourth of the training
people calibrates each model (the operating point with the best F1), and teaches no basis. `--calibrate`: on made-up
ways of these people in place of their untimed crops; then only the manifests are judged. Prints for each level:
pairwise F1, precision, recall, IDF1; the calibration error of the compared pairs with a probability of 0.05 to 0.95,
what right probabilities would show, and how many pairs these are.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.home import home
from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
from pipeline.association.transit import max_lookback_s, prior_times
from pipeline.calibration.fit import calibrate, write_calibrations
from pipeline.calibration.labeled_city import all_units
from pipeline.calibration.labeled_pairs import PairCollector, tracklet_truths
from pipeline.calibration.reliability import judge
from pipeline.city.units import read_city, read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.dataset import ingest_dataset
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit
from pipeline.spaces.derived import register_space
from pipeline.spaces.learning import BasisSource, calibrating_people, learn_space
from pipeline.store import Store
from reid_core.datasets import open_dataset
from reid_core.evaluation.evaluate import features_of, model_directory
from reid_core.evaluation.spaces import basis_of
from reid_core.feature_space import Basis
from reid_core.files import read_card
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.arrays import Floats
from schemas.calibration import LevelCalibration
from schemas.cards import InputConvention
from schemas.city_file import City
from schemas.levels import UPWARD, Level, level_of, parent_of
from schemas.settings import Settings, settings

WAYS = ("plain", "normalized", "with a basis", "with a basis without labels")
TEST, TRAIN = ("query", "bounding_box_test"), "bounding_box_train"
STREET = City.model_validate(
    {
        "units": [
            {"code": "d1"},
            {"code": "d1/s1"},
            *({"code": f"d1/s1/b{number}"} for number in (1, 2)),
            *({"code": f"d1/s1/b{number}/c{number}", "source": f"c{number}"} for number in (1, 2)),
        ]
    }
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set in Market-1501 form")
    parser.add_argument("--model", type=Path, required=True, help="a model directory, or an .xml or .onnx file")
    parser.add_argument("--convention", type=InputConvention.model_validate_json, help="of a file, as JSON")
    parser.add_argument("--manifest", type=Path, action="append", default=[], help="of made-up ways")
    parser.add_argument("--held-out", action="store_true", help="training people in place of the test people")
    parser.add_argument("--calibrate", help="made-up ways of the people who calibrate, manifest:FILE")
    parser.add_argument("--ways", default=",".join(WAYS), help="which of the models")
    given = parser.parse_args()
    with model_directory(given.model, given.convention, settings()) as model, tempfile.TemporaryDirectory() as folder:
        teach, held_out = _divide(given.data)
        judged = _some_people(given.data, Path(folder) / "judged", held_out, TEST[1]) if given.held_out else given.data
        basis = _basis(model, given.data, teach)
        print("| | judged | level | F1 | precision | recall | IDF1 | calibration error (floor; pairs) |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for way in given.ways.split(","):
            fitted = None
            for source in given.manifest if given.calibrate else (judged, *given.manifest):
                with home() as own, Store.open(Settings(home=own)) as store:
                    _ingest(store, source)
                    core, used = _model(store, model, way, basis)
                    directory = used.directory(store.settings)
                    # The calibration's city has means of its own cameras, and the same basis or one that its own
                    # tracklets teach: one fit for all that is judged.
                    if fitted is None:
                        labels = given.calibrate or f"market1501:{given.data}"
                        fitted = calibrate(settings(), directory, labels, max_false_merge_rate=1.0)
                    write_calibrations(store, used.id, fitted)
                    levels = {found.level: found for found in fitted.levels}
                    name = source.parent.name if source.is_file() else "the data set"
                    for level, cells in _scores(store, core, used, levels):
                        print(f"| {way} | {name} | {level} | {' | '.join(cells)} |", flush=True)


def _divide(data: Path) -> tuple[set[int], set[int]]:
    """The training people that teach the basis, and 100 others that may be judged; neither calibrate."""
    people = {sample.identity for sample in open_dataset(f"market1501:{data}").train}
    rest = sorted(people - calibrating_people(people, of_basis=True))
    held_out = np.random.default_rng(0).choice(rest, 100, replace=False).tolist()
    return set(rest) - set(held_out), set(held_out)


def _some_people(data: Path, folder: Path, people: set[int], split: str) -> Path:
    """A data set in `folder` whose `split` has these training people."""
    (folder / split).mkdir(parents=True)
    for file in sorted((data / TRAIN).iterdir()):
        if file.name.partition("_")[0].isdecimal() and int(file.name.partition("_")[0]) in people:
            shutil.copy(file, folder / split)
    return folder


def _basis(model: Path, data: Path, teach: set[int]) -> Basis:
    people = open_dataset(f"market1501:{data}").load("train", read_card(model).input)
    people = people.select(np.isin(people.identities, sorted(teach)))
    features = features_of(settings(), model, [people])[0].cpu().double().numpy()
    return basis_of(features, people)


def _ingest(store: Store, source: Path) -> None:
    crops = CropStore(store.settings)
    if source.is_file():
        store_city(store, read_city_file(source.with_name("city.yaml")))
        ingest_manifest(store, crops, source)
    else:
        splits = [split for split in TEST if (source / split).is_dir()]
        ingest_dataset(store, crops, source, "market1501", STREET, "none", splits=splits)


def _model(store: Store, directory: Path, way: str, basis: Basis) -> tuple[ReIDCore, ModelRow]:
    """The model in use, by the name of its way, with features of all crops."""
    ours = store.settings
    register_model(store, ours, directory, "base")
    base = use_model(store, "base")
    core = open_core(ours, base.directory(ours))
    cameras = [unit for unit in all_units(store) if level_of(unit) is Level.CAMERA]
    for camera in cameras:
        embed_camera(store, core, CropStore(ours), base, camera)
    if way == WAYS[0]:
        return core, base
    source: BasisSource = "none" if way == WAYS[1] else "people" if way == WAYS[2] else "tracklets"
    learned = learn_space(store, core, base, cameras, basis if source == "people" else source)
    register_space(store, base, learned, "space", source, "the judged crops")
    used = use_model(store, "space")
    return open_core(ours, used.directory(ours)), used


def _scores(
    store: Store, core: ReIDCore, model: ModelRow, calibrations: Mapping[Level, LevelCalibration]
) -> Iterator[tuple[Level, Sequence[str]]]:
    """Resolves the city, level by level; the cells of each level's row."""
    chosen = store.settings.association
    units = all_units(store)
    for unit in units:
        if level_of(unit) is Level.CAMERA:
            resolve_unit(store, core, model, unit, settings=chosen)
    with store.begin() as connection:
        truth = tracklet_truths(connection)
    errors = {}
    for level in UPWARD[1:]:
        its = [unit for unit in units if level_of(unit) is level]
        children = sorted(unit.code for unit in read_city(store).units if parent_of(unit.code) in set(its))
        collector = PairCollector(children, truth)
        for unit in its:
            resolve_unit(store, core, model, unit, settings=chosen, observe=collector.observer(unit, 0))
        pairs = collector.pairs()
        if pairs is not None:
            prior = prior_times(max_lookback_s(chosen.horizon_s(level)))
            transit = pairs.transit(calibrations[level].transit or prior, children)
            stated = expit(pairs.log_odds(calibrations[level].terms, transit))
            middle = judge(stated, pairs.same).middle
            errors[level] = f"{middle.ece:.3f} ({_floor(stated):.3f}; {middle.pairs})"
    found = agreement_by_level(labeled_tracklets(store, "d1", model.id), {})
    for level in UPWARD[1:]:
        row = found[level.value]
        figures = [f"{row[name]:.3f}" for name in ("pairwise_f1", "precision", "recall", "idf1")]
        yield level, [*figures, errors.get(level, "")]


def _floor(stated: Floats) -> float:
    """The calibration error in the middle that probabilities would show that are right."""
    rng = np.random.default_rng(0)
    return float(np.mean([judge(stated, rng.random(len(stated)) < stated).middle.ece for _ in range(20)]))


if __name__ == "__main__":
    main()
