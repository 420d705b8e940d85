"""Real pedestrians from a video to the report: four regions of a public sample video as cameras of two buildings.

Needs the published models and the video (URBAN_REID_TEST_ASSETS). The video has no labels, so accuracy is not tested.
The calibration is that of retail-0277 fitted on a cross-camera data set of a campus.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import pytest
from sqlalchemy import text

from pipeline.calibration.fit import Fitted, write_calibrations
from pipeline.city.status import status
from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.video import ingest_video
from pipeline.registry import model_in_use, register_model, use_model
from pipeline.report import write_report
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.search.request import request_search
from pipeline.search.search import search
from pipeline.store import Store
from reid_core.detection import open_detector
from reid_core.serving.factory import open_core
from schemas.calibration import LevelCalibration, straight_line
from schemas.city_file import City
from schemas.levels import Level
from schemas.parameters import SearchParameters
from tests.helpers.assets import ASSETS, CONVENTION

pytestmark = pytest.mark.skipif(ASSETS is None, reason="URBAN_REID_TEST_ASSETS is not set")

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
FRAMES = 80
REGIONS = {  # quarters of the frame; a person on the border is seen in two of them at once
    "d1/s1/b1/c1": (0, 0, 384, 288),
    "d1/s1/b1/c2": (0, 288, 384, 288),
    "d1/s1/b2/c1": (384, 0, 384, 288),
    "d1/s1/b2/c2": (384, 288, 384, 288),
}
CITY = City.model_validate(
    {
        "units": [
            {"code": "d1"},
            {"code": "d1/s1"},
            {"code": "d1/s1/b1", "name": "Plaza, west", "kind": "site"},
            {"code": "d1/s1/b2", "name": "Plaza, east", "kind": "site"},
            *(
                {"code": code, "overlaps": [code[:-1] + ("2" if code[-1] == "1" else "1")], "clock_uncertainty_s": 1}
                for code in REGIONS
            ),
        ]
    }
)
#: Fitted on 186 of the training people of CUHK03's camera pair 1 ('detected'); docs/results.md has the command.
_FITS = {  # slope, intercept, operating point, pairs, pairs of one person
    Level.BUILDING: (24.52, 20.76, -1.0, 14559, 3549),
    Level.STREET: (22.38, 20.19, -1.0, 3340, 251),
    Level.DISTRICT: (15.66, 13.08, 3.0, 2251, 84),
}
CALIBRATION = tuple(
    LevelCalibration(
        level=level,
        terms=straight_line(slope, intercept),
        join_log_odds=join,
        review_log_odds=join - 1,
        fitted_on="CUHK03 camera pair 1, detected",
        pairs=pairs,
        positives=positives,
    )
    for level, (slope, intercept, join, pairs, positives) in _FITS.items()
)


@pytest.fixture
def clip(tmp_path: Path) -> Iterator[Path]:
    """The video's first seconds."""
    assert ASSETS is not None
    whole = cv2.VideoCapture(str(ASSETS / "data" / "vtest.avi"))
    path = tmp_path / "plaza.avi"
    part = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (768, 576))
    for _ in range(FRAMES):
        part.write(whole.read()[1])
    part.release()
    whole.release()
    yield path


def test_from_the_video_to_the_report(store: Store, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert ASSETS is not None
    models = ASSETS / "models"
    detector = open_detector(
        store.settings, models / "person-detection-retail-0013" / "person-detection-retail-0013.xml"
    )
    crops = CropStore(store.settings)
    store_city(store, CITY)
    for camera, region in REGIONS.items():
        ingest_video(store, crops, str(clip), camera, detector=detector, start=START, region=region, again="add")

    embedder = models / "person-reidentification-retail-0277" / "person-reidentification-retail-0277.xml"
    model_id = register_model(store, store.settings, embedder, "retail-0277", CONVENTION)
    use_model(store, "retail-0277")
    write_calibrations(store, model_id, Fitted(CALIBRATION, {}, {}))
    with store.begin() as connection:
        model = model_in_use(connection)
    core = open_core(store.settings, model.directory(store.settings))
    for unit in units_within(store, "d1"):
        if unit in REGIONS:
            embed_camera(store, core, crops, model, unit)
        resolve_unit(store, core, model, unit, settings=store.settings.association)
    found = status(store)
    assert found["crops"] >= 40 and found["pending"] == 0
    assert found["levels"]["camera"] > found["levels"]["district"] >= 3  # people cross the plaza's quarters

    with store.begin() as connection:
        key, district = connection.execute(
            text(
                "SELECT encode(c.key, 'hex'), d.persistent_id FROM identity_now d "
                "CROSS JOIN unnest(d.tracklets) AS t(id) JOIN identity_member m ON m.identity_id = t.id "
                "JOIN crop c ON c.id = m.crop_id WHERE d.level = 'district' ORDER BY d.crops DESC, c.key LIMIT 1"
            )
        ).one()
    asked = SearchParameters(unit="d1", crop_key=key, reason="test of the line", operator="pytest", top=3)
    hits = search(store, lambda _: core, crops, model, request_search(store, model, asked), asked).hits
    assert hits[0].identity == district and hits[0].crops[0].key == key
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert write_report(store, crops, "d1", tmp_path / "report").exists()
