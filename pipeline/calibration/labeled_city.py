"""A city with known truth in a temporary database: the data of a calibration."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.calibration.withheld import Withheld
from pipeline.city.units import read_city, read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.dataset import SPLITS, dataset_files, ingest_dataset
from pipeline.ingest.features import take_in_features
from pipeline.ingest.manifest import ingest_manifest, manifest_lines
from pipeline.ingest.picture_roots import Places
from pipeline.registry import ModelRow, models, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.spaces.derived import register_space
from pipeline.spaces.learning import Unlabeled, calibrating_people, learn_space
from pipeline.store import Store
from reid_core.feature_space import Basis
from reid_core.files import open_space, read_card, save_base
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.city_file import City, Unit, Walk
from schemas.errors import InputError
from schemas.levels import Level, level_of
from schemas.settings import Settings
from synthetic.embedding_city import EmbeddingCitySettings, embedding_city
from synthetic.rendered_city import simulate_city, write_city

OnStep = Callable[[str], None]

#: Cameras of each simulated city. Fewer give too few streets, more take longer.
_CAMERAS = 64


@contextmanager
def labeled_city(
    settings: Settings, model_directory: Path, source: str, on_step: OnStep, withheld: Withheld | None = None
) -> Iterator[tuple[Store, ReIDCore, ModelRow]]:
    """A store with the labeled crops of `source`, grouped into tracklets; deleted on exit. See `calibrate`.

    withheld: takes its tracklets out of the city, as probes for searches. Where the model is a feature space, the
    city gets its own on the same base: means from its own crops, since its cameras are others, and the same basis, or
    one from its own tracklets where that was learned from tracklets.
    """
    kind, _, argument = source.partition(":")
    if kind not in ("rendered", "simulated", "market1501", "manifest") or not argument:
        raise InputError(
            f"{source[:80]!r}: calibrate on rendered:SEED,SEED,..., simulated:SEED,SEED,..., market1501:DIR "
            "or manifest:FILE"
        )
    # Outside the operator's own folders: the embedded server may run as another user, who needs access.
    home = Path(tempfile.mkdtemp(prefix="urban-reid-calibrate-"))
    try:
        own_settings = settings.model_copy(update={"home": home, "database_url": None, "pictures_url": None})
        with Store.open(own_settings, "urban-reid models calibrate") as store:
            crops = CropStore(own_settings)
            if kind == "rendered":
                _ingest_rendered(store, crops, _seeds(source), home, on_step, withheld)
            elif kind == "market1501":
                space = read_card(model_directory).feature_space
                of_basis = space is not None and space.basis == "people"
                _ingest_market(store, crops, Path(argument), home, on_step, withheld, of_basis)
            elif kind == "manifest":
                _ingest_labels(store, crops, Path(argument), home, withheld)
            base = _register(store, model_directory)
            if kind == "simulated":
                _ingest_simulated(store, base, _seeds(source), on_step, withheld)
            core = open_core(own_settings, base.directory(own_settings))
            cameras = [unit for unit in all_units(store) if level_of(unit) is Level.CAMERA]
            for number, camera in enumerate(cameras, 1):
                embed_camera(store, core, crops, base, camera)
                on_step(f"camera {number} of {len(cameras)}: features")
            model = use_model(store, _own_space(store, core, base, model_directory, cameras).name)
            if model.base_id is not None:
                core = open_core(own_settings, model.directory(own_settings))
            for number, camera in enumerate(cameras, 1):
                resolve_unit(store, core, model, camera, settings=own_settings.association)
                on_step(f"camera {number} of {len(cameras)}: tracklets")
            yield store, core, model
    finally:
        shutil.rmtree(home)


def _register(store: Store, model_directory: Path) -> ModelRow:
    """The model in the directory, or the base of a feature space, registered."""
    with tempfile.TemporaryDirectory(prefix="urban-reid-base-") as folder:
        if read_card(model_directory).feature_space is not None:
            save_base(model_directory, Path(folder))
            model_directory = Path(folder)
        register_model(store, store.settings, model_directory, "calibrated")
    return models(store)[0]


def _own_space(store: Store, core: ReIDCore, base: ModelRow, model_directory: Path, cameras: Sequence[str]) -> ModelRow:
    """The city's own feature space where the model in the directory is one, else `base`. core: of `base`."""
    card = read_card(model_directory)
    space = open_space(model_directory, card)
    if space is None or card.feature_space is None:
        return base
    basis: Unlabeled | Basis = "none" if space.basis is None else space.basis
    if card.feature_space.basis == "tracklets":
        basis = "tracklets"  # a basis fits the tracklets that taught it, and so it does in the city that is calibrated
    learned = learn_space(store, core, base, cameras, basis)
    return register_space(store, base, learned, "normalized", card.feature_space.basis, "labeled crops")


def _seeds(source: str) -> list[int]:
    kind, _, argument = source.partition(":")
    seeds = argument.split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}", seed) for seed in seeds) or len({int(seed) for seed in seeds}) < len(seeds):
        raise InputError(f"{source[:80]}: seeds must be different whole numbers, as in {kind}:101,102")
    return [int(seed) for seed in seeds]


def _ingest_rendered(
    store: Store, crops: CropStore, seeds: list[int], home: Path, on_step: OnStep, withheld: Withheld | None
) -> None:
    """The city of each seed becomes a district."""
    units: list[Unit] = []
    walks: list[Walk] = []
    manifests: list[Path] = []
    for seed in seeds:
        folder = home / f"rendered-{seed}"
        on_step(f"rendering city {seed}")
        manifest = write_city(simulate_city(seed), folder)
        for file in (manifest, folder / "city.yaml"):
            file.write_text(file.read_text(encoding="utf-8").replace('"d1', f'"d{seed}'), encoding="utf-8")
        city = read_city_file(folder / "city.yaml")
        units += city.units
        walks += city.walks
        if withheld is not None:
            withheld.from_manifest(manifest)
        manifests.append(manifest)
    store_city(store, City(units=tuple(units), walks=tuple(walks)))
    for manifest in manifests:
        ingest_manifest(store, crops, manifest, synthetic=True)


def _ingest_simulated(
    store: Store, model: ModelRow, seeds: list[int], on_step: OnStep, withheld: Withheld | None
) -> None:
    """The city of each seed becomes a district."""
    cities = {seed: embedding_city(EmbeddingCitySettings(cameras=_CAMERAS, seed=seed)) for seed in seeds}
    units: list[Unit] = []
    walks: list[Walk] = []
    for seed, simulated in cities.items():
        district = f"d{seed}"
        for unit in simulated.city.units:
            codes = {
                "code": _in_district(unit.code, district),
                "overlaps": [_in_district(code, district) for code in unit.overlaps],
            }
            units.append(Unit.model_validate(unit.model_dump() | codes))
        for walk in simulated.city.walks:
            ends = {"from": _in_district(walk.from_, district), "to": _in_district(walk.to, district)}
            walks.append(Walk.model_validate(ends | {"shortest_s": walk.shortest_s}))
    store_city(store, City(units=tuple(units), walks=tuple(walks)))
    for seed, simulated in cities.items():
        on_step(f"simulating city {seed}")
        cameras = tuple(_in_district(code, f"d{seed}") for code in simulated.camera_codes)
        for batch in simulated.batches():
            people = f"{seed}-"
            left = batch if withheld is None else withheld.from_batch(batch, cameras, people)
            take_in_features(store, model, cameras, left, people=people)


def _in_district(code: str, district: str) -> str:
    """The code with another first segment."""
    return "/".join([district, *code.split("/")[1:]])


def _ingest_market(
    store: Store,
    crops: CropStore,
    directory: Path,
    home: Path,
    on_step: OnStep,
    withheld: Withheld | None,
    of_basis: bool,
) -> None:
    """The training people who calibrate, or those of all if there is no training folder."""
    splits = ["bounding_box_train"] if (directory / "bounding_box_train").is_dir() else None
    files = dataset_files(directory, splits)
    people = {file.person for file in files}
    chosen = calibrating_people(people, of_basis)
    on_step(f"{directory}: {len(chosen)} of {len(people)} people")
    subset = home / "market" / SPLITS[0]
    subset.mkdir(parents=True)
    taken = [file for file in files if file.person in chosen]
    cameras = {camera: f"d1/s1/b-{camera}/{camera}" for camera in sorted({file.camera for file in files})}
    for file in taken if withheld is None else withheld.from_files(taken, cameras):
        shutil.copy(file.path, subset)
    units = [{"code": "d1"}, {"code": "d1/s1"}]
    for camera, code in cameras.items():
        units += [{"code": f"d1/s1/b-{camera}"}, {"code": code, "source": camera}]
    ingest_dataset(store, crops, subset.parent, "market1501", City.model_validate({"units": units}), "none")


def _ingest_labels(store: Store, crops: CropStore, manifest: Path, home: Path, withheld: Withheld | None) -> None:
    """The crops of a manifest with the truth and the track of each, in the city whose city.yaml lies beside it."""
    store_city(store, read_city_file(manifest.with_name("city.yaml")))
    if withheld is not None:
        places, copy = Places(manifest.parent, store.settings.crop_roots), home / "labels"
        copy.mkdir()
        texts = []
        for number, line in manifest_lines(manifest):
            if isinstance(line, str):
                raise InputError(f"{manifest}: line {number}: {line}")
            (copy / str(number)).write_bytes(places.find(line.path).read())
            texts.append(line.model_copy(update={"path": str(number)}).model_dump_json())
        manifest = copy / "manifest.jsonl"
        manifest.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        withheld.from_manifest(manifest)
    ingest_manifest(store, crops, manifest)


def all_units(store: Store) -> list[str]:
    """Codes of all units, per district, each before its parent."""
    districts = [unit.code for unit in read_city(store).units if level_of(unit.code) is Level.DISTRICT]
    return [code for district in districts for code in units_within(store, district)]
