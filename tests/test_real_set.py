"""The real cross-camera set through the city: each crop its own tracklet, no times, two buildings of one street.

Needs URBAN_REID_REAL_SET (a data set in Market-1501 form whose folders are real people's, for research use) and the
published embedder. The figures stand in docs/results.md; here is that they do not silently fall.
"""

import random
import shutil
from pathlib import Path

import pytest

from pipeline.accuracy.labeled import labeled_tracklets, score
from pipeline.calibration.fit import calibrate, write_calibrations
from pipeline.city.decision_digest import decision_digest
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.dataset import ingest_dataset
from pipeline.registry import register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from reid_core.serving.factory import open_core
from schemas.city_file import City
from schemas.settings import settings as environment
from tests.helpers.assets import CONVENTION
from tests.helpers.homes import fresh_settings

ASSETS, REAL_SET = environment().test_assets, environment().real_set
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(ASSETS is None or REAL_SET is None, reason="URBAN_REID_REAL_SET is not set"),
]

CITY = City.model_validate(
    {
        "units": [
            {"code": "d1"},
            {"code": "d1/s1"},
            {"code": "d1/s1/b1"},
            {"code": "d1/s1/b2"},
            {"code": "d1/s1/b1/c1", "source": "c1"},
            {"code": "d1/s1/b2/c2", "source": "c2"},
        ]
    }
)


def test_street_level_on_people_never_seen(server: EmbeddedServer, tmp_path: Path) -> None:
    """Calibrated on training people, judged on the test people; and shuffled names change no decision."""
    assert ASSETS is not None and REAL_SET is not None
    embedder = ASSETS / "models/person-reidentification-retail-0277/person-reidentification-retail-0277.xml"
    digests, fitted = [], None
    for folder in (REAL_SET, _under_other_names(REAL_SET, tmp_path)):
        with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
            model_id = register_model(store, settings, embedder, "retail-0277", CONVENTION)
            model = use_model(store, "retail-0277")
            # The best F1, whatever share of the joins is wrong: at the default of 5 % much is left to the review band.
            fitted = fitted or calibrate(settings, model.directory(settings), f"market1501:{REAL_SET}", most_wrong=1.0)
            write_calibrations(store, model_id, fitted)
            crops = CropStore(settings)
            splits = ["query", "bounding_box_test"]
            ingest_dataset(store, crops, folder, "market1501", CITY, "none", splits=splits)
            core = open_core(settings, model.directory(settings))
            for unit in units_within(store, "d1"):
                if unit.count("/") == 3:
                    embed_camera(store, core, crops, model, unit)
                resolve_unit(store, core, model, unit, settings=settings.association)
            with store.begin() as connection:
                digests.append(decision_digest(connection))
            if folder == REAL_SET:
                nearest = {level.value: most for level, most in fitted.nearest_neighbor_distance.items()}
                street = score(labeled_tracklets(store, "d1", model.id), nearest)["street"]
    assert digests[0] == digests[1]
    assert street["pairwise_f1"] > 0.7 > street["nearest_neighbor_f1"]


def _under_other_names(real: Path, folder: Path) -> Path:
    """The test folders with the people's numbers shuffled over the files."""
    rng = random.Random(0)
    for split in ("query", "bounding_box_test"):
        target = folder / split
        target.mkdir()
        files = sorted((real / split).glob("*.jpg"))
        people = [file.name.split("_")[0] for file in files]
        rng.shuffle(people)
        for number, (file, person) in enumerate(zip(files, people, strict=True)):
            camera = file.name.split("_")[1]  # the running number stands for the frame, so that no two names are alike
            shutil.copy(file, target / f"{person}_{camera}_{number:06d}_00.jpg")
        assert len(list(target.iterdir())) == len(files)
    return folder
