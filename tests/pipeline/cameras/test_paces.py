"""A recorded file gives one decision digest, whatever its pace."""

from pathlib import Path

import pytest

from pipeline.cameras.pacing import PacedFile
from pipeline.cameras.recordings import recordings_at, take
from pipeline.city.decision_digest import decision_digest
from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.looks import View
from pipeline.ingest.video_file import VideoFile
from pipeline.registry import register_model, use_model
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from reid_core.serving.factory import open_core
from schemas.city_file import City
from schemas.feeds import Feed
from tests.helpers.homes import fresh_settings
from tests.helpers.pictures import UNITS
from tests.helpers.red_detector import RedDetector
from tests.helpers.town import PACKAGED
from tests.helpers.video_files import walk, write_video

C1 = "d1/s1/b1/c1"

pytestmark = pytest.mark.system


def digest_at(pace: float | None, server: EmbeddedServer, path: Path) -> tuple[str, int]:
    """The decision digest of a city that takes the file in at some times its pace, None: at once; and its windows."""

    def opened(*given: object, **options: object) -> VideoFile:
        if pace is None:
            return VideoFile(*given, **options)  # type: ignore[arg-type]
        return PacedFile(*given, **options, pace=pace)  # type: ignore[arg-type]

    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        store_city(store, City.model_validate({"units": UNITS}))
        register_model(store, settings, PACKAGED, "demo")
        model = use_model(store, "demo")
        crops, core = CropStore(settings), open_core(settings, model.directory(settings))
        feed = Feed.model_validate({"camera": C1, "address": str(path)})
        [recording] = recordings_at(path)
        assert take(store, crops, feed, recording, View(C1), RedDetector(), open_file=opened).refused is None
        embed_camera(store, core, crops, model, C1)
        written = sum(
            resolve_unit(store, core, model, code, settings=settings.association).written
            for code in units_within(store, "d1")
        )
        with store.begin() as connection:
            return decision_digest(connection), written


def test_one_digest_at_its_own_pace_at_twenty_times_and_at_once(server: EmbeddedServer, tmp_path: Path) -> None:
    path = write_video(tmp_path / "2026-01-01T08-00-00Z.avi", [*walk(50, 5), *reversed(walk(50, 5))])
    found = {digest_at(pace, server, path) for pace in (1, 20, None)}
    assert len(found) == 1 and next(iter(found))[1] > 0
