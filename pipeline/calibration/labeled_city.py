"""A city whose truth is known, in a database of its own: what a calibration learns from."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.city.units import read_city, read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.dataset import SPLITS, dataset_files, ingest_dataset
from pipeline.ingest.features import take_in_features
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.city_file import City, Unit, Walk
from schemas.errors import InputError
from schemas.levels import Level, level_of
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from synthetic.rendered_city import simulate_city, write_city

Report = Callable[[str], None]

#: Of each simulated city; fewer have too few streets, and more take longer.
_CAMERAS = 64
#: Of a data set; more would take an hour and move the fit by little.
_MOST_PEOPLE = 200


@contextmanager
def labeled_city(
    settings: Settings, model_directory: Path, source: str, report: Report
) -> Iterator[tuple[Store, ReIDCore, ModelRow]]:
    """A store with the labeled crops of `source`, grouped into tracklets; gone afterwards. See `calibrate`."""
    kind, _, what = source.partition(":")
    if kind not in ("rendered", "simulated", "market1501") or not what:
        raise InputError(
            f"{source[:80]!r}: calibrate on rendered:SEED,SEED,..., simulated:SEED,SEED,... or market1501:DIR"
        )
    # Not below the user's own folders: the embedded server may run as another user, who has to reach it.
    home = Path(tempfile.mkdtemp(prefix="urban-reid-calibrate-"))
    home.chmod(0o711)
    try:
        own = settings.model_copy(update={"home": home, "database_url": None})
        with Store.open(own, "urban-reid models calibrate") as store:
            crops = CropStore(own)
            if kind == "rendered":
                _take_in_rendered(store, crops, _seeds(what), home, report)
            elif kind == "market1501":
                _take_in_market(store, crops, Path(what), home, report)
            register_model(store, own, model_directory, "calibrated")
            model = use_model(store, "calibrated")
            if kind == "simulated":
                _take_in_simulated(store, model, _seeds(what), report)
            core = open_core(own, model.directory(own))
            cameras = [unit for unit in all_units(store) if level_of(unit) is Level.CAMERA]
            for number, camera in enumerate(cameras, 1):
                embed_camera(store, core, crops, model, camera)
                resolve_unit(store, core, model, camera, settings=own.association)
                report(f"camera {number} of {len(cameras)}: features and tracklets")
            yield store, core, model
    finally:
        shutil.rmtree(home)


def _seeds(what: str) -> list[int]:
    seeds = what.split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}", seed) for seed in seeds) or len({int(seed) for seed in seeds}) < len(seeds):
        raise InputError(f"rendered:{what[:60]}: seeds are different whole numbers, as in rendered:101,102")
    return [int(seed) for seed in seeds]


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


def _take_in_simulated(store: Store, model: ModelRow, seeds: list[int], report: Report) -> None:
    """Each seed's city becomes a district."""
    cities = [embedding_city(EmbeddingCitySettings(cameras=_CAMERAS, seed=seed)) for seed in seeds]
    names = {seed: f"d{seed}" for seed in seeds}
    units: list[Unit] = []
    walks: list[Walk] = []
    for seed, made in zip(seeds, cities, strict=True):
        for unit in made.city.units:
            moved = {
                "code": _moved(unit.code, names[seed]),
                "overlaps": [_moved(o, names[seed]) for o in unit.overlaps],
            }
            units.append(Unit.model_validate(unit.model_dump() | moved))
        for walk in made.city.walks:
            ends = {"from": _moved(walk.from_, names[seed]), "to": _moved(walk.to, names[seed])}
            walks.append(Walk.model_validate(ends | {"shortest_s": walk.shortest_s}))
    store_city(store, City(units=tuple(units), walks=tuple(walks)))
    for seed, made in zip(seeds, cities, strict=True):
        report(f"simulating city {seed}")
        codes = tuple(_moved(code, names[seed]) for code in made.camera_codes)
        for batch in made.batches():
            take_in_features(store, model, codes, batch, people=f"{seed}-")


def _moved(code: str, district: str) -> str:
    return "/".join([district, *code.split("/")[1:]])


def _take_in_market(store: Store, crops: CropStore, directory: Path, home: Path, report: Report) -> None:
    """The training people, or those of all folders where there is none for training; of many, evenly spaced ones."""
    splits = ["bounding_box_train"] if (directory / "bounding_box_train").is_dir() else None
    files = dataset_files(directory, splits)
    people = sorted({file.person for file in files})
    chosen = set(people[:: -(-len(people) // _MOST_PEOPLE)])
    report(f"{directory}: {len(chosen)} of {len(people)} people")
    subset = home / "market" / SPLITS[0]
    subset.mkdir(parents=True)
    for file in files:
        if file.person in chosen:
            shutil.copy(file.path, subset)
    units = [{"code": "d1"}, {"code": "d1/s1"}]
    for camera in sorted({file.camera for file in files}):
        units += [{"code": f"d1/s1/b-{camera}"}, {"code": f"d1/s1/b-{camera}/{camera}", "source": camera}]
    ingest_dataset(store, crops, subset.parent, "market1501", City.model_validate({"units": units}), "none")


def all_units(store: Store) -> list[str]:
    districts = [unit.code for unit in read_city(store).units if level_of(unit.code) is Level.DISTRICT]
    return [code for district in districts for code in units_within(store, district)]
