"""A small rendered city, resolved with the demo's model and a calibration that joins readily."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import reid_core
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from reid_core.files import read_card, write_card
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration, straight_line
from schemas.levels import UPWARD
from synthetic.rendered_city import simulate_city, write_city
from tests.conftest import fresh_settings

PACKAGED = Path(reid_core.__file__).parent / "weights" / "demo"


@pytest.fixture(scope="session")
def city_files() -> Iterator[Path]:
    """A folder with city.yaml, manifest.jsonl and pictures."""
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-test-city-"))
    write_city(simulate_city(3, people=8, duration_s=900), folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def lines(city_files: Path) -> list[str]:
    return (city_files / "manifest.jsonl").read_text().splitlines()


@pytest.fixture(scope="session")
def model_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-test-model-"))
    shutil.copytree(PACKAGED, folder, dirs_exist_ok=True)
    calibrations = tuple(
        LevelCalibration(
            level=level,
            terms=straight_line(6.0, 3.5),
            join_log_odds=0.0,
            review_log_odds=-1.0,
            fitted_on="nothing",
            pairs=0,
            positives=0,
        )
        for level in UPWARD[1:]
    )
    write_card(read_card(folder).model_copy(update={"calibration": calibrations}), folder)
    yield folder
    shutil.rmtree(folder)


class Town:
    """What the tests do to a store: take lines of the manifest in, resolve a unit and all below it."""

    def __init__(self, store: Store, files: Path, model_folder: Path, *, calibrated: bool = True) -> None:
        self.store, self.files = store, files
        self.crops = CropStore(store.settings)
        store_city(store, read_city_file(files / "city.yaml"))
        with tempfile.TemporaryDirectory() as folder:
            source = shutil.copytree(model_folder, Path(folder) / "model")
            if not calibrated:
                write_card(read_card(source).model_copy(update={"calibration": ()}), source)
            register_model(store, store.settings, source, "test")
        self.model: ModelRow = use_model(store, "test")
        self.core: ReIDCore = open_core(store.settings, self.model.directory(store.settings))

    def take_in(self, lines: list[str]) -> None:
        part = self.files / f"part-{abs(hash(tuple(lines)))}.jsonl"
        part.write_text("\n".join(lines) + "\n")
        try:
            ingest_manifest(self.store, self.crops, part)
        finally:
            part.unlink()

    def resolve(self, unit: str = "d1") -> int:
        """Rows written."""
        written = 0
        for code in units_within(self.store, unit):
            if code.count("/") == 3:
                embed_camera(self.store, self.core, self.crops, self.model, code)
            settings = self.store.settings.association
            written += resolve_unit(self.store, self.core, self.model, code, settings=settings).written
        return written


@pytest.fixture
def town(store: Store, city_files: Path, model_folder: Path) -> Town:
    return Town(store, city_files, model_folder)


@pytest.fixture(scope="module")
def resolved(server: EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Town]:
    """A part of the city, resolved. Of it tests change nothing but the calibration, which is the newest that counts."""
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:150])
        town.resolve()
        yield town


@pytest.fixture
def fresh_town(server: EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Callable[..., Town]]:
    """Makes further towns, each with a database and a home of its own."""
    with ExitStack() as ends:

        def make(*, calibrated: bool = True) -> Town:
            store = ends.enter_context(Store.open(ends.enter_context(fresh_settings(server)), "pytest"))
            return Town(store, city_files, model_folder, calibrated=calibrated)

        yield make


@pytest.fixture
def by_time(lines: list[str]) -> Callable[[], list[str]]:
    return lambda: sorted(lines, key=lambda line: json.loads(line)["time"])
