"""Measures how far apart a model's pairs are, for the catalog (`distances` in reid_core/catalog/models.toml).

    python -m scripts.measure_distances FOLDER --model DIR --on "the data, in words"

FOLDER holds city.yaml and manifest.jsonl, whose crops have tracks and truths: people who walk from building to building
of a street. DIR is a model directory. Prints the table in TOML. Measure on other data than you report on.
"""

import argparse
import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import text

from benchmarks.home import home
from pipeline.calibration.unlabeled.learn import nothing_joined
from pipeline.calibration.unlabeled.pair_sample import PairSampler
from pipeline.calibration.unlabeled.prior import measure
from pipeline.calibration.unlabeled.rehearsal import Rehearsal, read_tracklets
from pipeline.city.units import read_city, read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import register_model, use_model
from pipeline.resolve import embed_camera
from pipeline.store import Store
from reid_core.serving.factory import open_core
from schemas.calibration import DistancePrior
from schemas.levels import Level, level_of, parent_of
from schemas.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--on", required=True, help="the data, in words")
    arguments = parser.parse_args()
    with home() as folder, Store.open(Settings(home=folder)) as store:
        sys.stdout.write(as_toml(measured(store, arguments.folder, arguments.model, arguments.on)))


def measured(store: Store, folder: Path, model_directory: Path, source: str) -> DistancePrior:
    """The prior that the tracklets of a labeled city show: of pairs that a street may compare, none of them joined."""
    crops = CropStore(store.settings)
    store_city(store, read_city_file(folder / "city.yaml"))
    ingest_manifest(store, crops, folder / "manifest.jsonl")
    register_model(store, store.settings, model_directory, "measured")
    model = use_model(store, "measured")
    core, city = open_core(store.settings, model.directory(store.settings)), read_city(store)
    cameras = [unit.code for unit in city.units if level_of(unit.code) is Level.CAMERA]
    for camera in cameras:
        embed_camera(store, core, crops, model, camera)
    with store.begin() as connection:
        first, last = connection.execute(text("SELECT min(captured_at), max(captured_at) FROM crop WHERE timed")).one()
        truth = dict(connection.execute(text("SELECT crop_id, truth FROM crop_truth")).tuples().all())
    tracklets = read_tracklets(store, core, model, cameras, first, last + timedelta(microseconds=1))
    person = {number: truth[crops_of[0]] for number, crops_of in tracklets.crops.items()}

    rehearsal = Rehearsal(city, core, store.settings.association, tracklets.seen)
    buildings, streets = (
        sorted(unit.code for unit in city.units if level_of(unit.code) is level)
        for level in (Level.BUILDING, Level.STREET)
    )
    alone = {code: rehearsal.resolve(code, tracklets.versions, None).versions for code in buildings}
    district = {parent_of(code) or "" for code in streets}.pop()
    sampler = PairSampler(core, buildings, rehearsal.geometry(district), rehearsal.geometry, tracklets.seen)
    for code in streets:
        rehearsal.resolve(code, alone, nothing_joined(Level.STREET), sampler.observer(code))
    pairs = sampler.pairs()
    assert pairs is not None, "a street compares its buildings' people"
    pairs = pairs.take(~pairs.different)
    ends = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    same = np.array([person[left] == person[right] for left, right in ends])
    return measure(pairs.distance, pairs.left_weight, pairs.right_weight, pairs.weight, same, source)


def as_toml(prior: DistancePrior) -> str:
    values = prior.model_dump()
    strangers = ", ".join(map(str, values.pop("strangers")))
    rows = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(["[models.distances]", *rows, f"strangers = [{strangers}]", ""])


if __name__ == "__main__":
    main()
