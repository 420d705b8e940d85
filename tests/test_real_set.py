"""A real data set of two cameras as a city: each crop is a tracklet, without times, in two buildings of one street.

Needs URBAN_REID_REAL_SET (a data set of real people in Market-1501 form, for research use) and the published embedder.
The figures are in docs/results.md; this test keeps them from falling unnoticed.
"""

import random
import shutil
from pathlib import Path

import pytest

from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
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
from tests.helpers.assets import ASSETS, CONVENTION, REAL_SET
from tests.helpers.homes import fresh_settings

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
    """Calibrated on the training people, scored on the test people; shuffled names change no decision."""
    assert ASSETS is not None and REAL_SET is not None
    embedder = ASSETS / "models/person-reidentification-retail-0277/person-reidentification-retail-0277.xml"
    digests, fitted = [], None
    for folder in (REAL_SET, _under_other_names(REAL_SET, tmp_path)):
        with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
            model_id = register_model(store, settings, embedder, "retail-0277", CONVENTION)
            model = use_model(store, "retail-0277")
            # The best F1 at any false-merge rate: with the default of 5 % many pairs stay in the review band.
            fitted = fitted or calibrate(
                settings, model.directory(settings), f"market1501:{REAL_SET}", max_false_merge_rate=1.0
            )
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
                nearest = {level.value: threshold for level, threshold in fitted.nearest_neighbor_distance.items()}
                street = agreement_by_level(labeled_tracklets(store, "d1", model.id), nearest)["street"]
    assert digests[0] == digests[1]
    assert street["pairwise_f1"] > 0.7 > street["nearest_neighbor_f1"]


def _under_other_names(real: Path, folder: Path) -> Path:
    """A copy of the test folders with the people's numbers shuffled over the files."""
    rng = random.Random(0)
    for split in ("query", "bounding_box_test"):
        target = folder / split
        target.mkdir()
        files = sorted((real / split).glob("*.jpg"))
        people = [file.name.split("_")[0] for file in files]
        rng.shuffle(people)
        for number, (file, person) in enumerate(zip(files, people, strict=True)):
            camera = file.name.split("_")[1]  # the number replaces the frame, so that names are distinct
            shutil.copy(file, target / f"{person}_{camera}_{number:06d}_00.jpg")
        assert len(list(target.iterdir())) == len(files)
    return folder
