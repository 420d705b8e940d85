"""A rendered city in a store, for tests."""

import shutil
import tempfile
from pathlib import Path

from sqlalchemy import text

import reid_core
from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import ModelRow, model_in_use, register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from reid_core.files import read_card, write_card
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core

PACKAGED = reid_core.DEMO_MODEL


class Town:
    """A store with the city and a model in use; takes in lines of the manifest, and resolves."""

    def __init__(self, store: Store, files: Path, model_folder: Path | None, *, calibrated: bool = True) -> None:
        """model_folder: None for a store that holds the city and the model already."""
        self.store, self.files = store, files
        self.crops = CropStore(store.settings)
        if model_folder is not None:
            store_city(store, read_city_file(files / "city.yaml"))
            with tempfile.TemporaryDirectory() as folder:
                source = shutil.copytree(model_folder, Path(folder) / "model")
                if not calibrated:
                    write_card(read_card(source).model_copy(update={"calibration": ()}), source)
                register_model(store, store.settings, source, "test")
            use_model(store, "test")
        with store.begin() as connection:
            self.model: ModelRow = model_in_use(connection)
        self.core: ReIDCore = open_core(store.settings, self.model.directory(store.settings))

    def take_in(self, lines: list[str]) -> None:
        part = self.files / f"part-{abs(hash(tuple(lines)))}.jsonl"
        part.write_text("\n".join(lines) + "\n")
        try:
            ingest_manifest(self.store, self.crops, part)
        finally:
            part.unlink()

    def pictures(self) -> list[Path]:
        """The crops' files in the order of their pictures' hashes; names of files differ each time."""
        with self.store.begin() as connection:
            rows = connection.execute(text("SELECT camera, captured_at, picture FROM crop ORDER BY picture, id")).all()
        places = [(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in rows]
        return [self.crops.root / self.crops.name(place, picture) for place, picture in places]

    def resolve(self, unit: str = "d1") -> int:
        """Resolves a unit and all units below it. Returns the number of rows written."""
        written = 0
        for code in units_within(self.store, unit):
            if code.count("/") == 3:
                embed_camera(self.store, self.core, self.crops, self.model, code)
            settings = self.store.settings.association
            written += resolve_unit(self.store, self.core, self.model, code, settings=settings).written
        return written
