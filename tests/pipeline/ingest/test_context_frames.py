"""Context frames: one of each track, black where it is masked, gone with its batch and by age."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.cameras.recordings import recordings_at, take
from pipeline.city.units import store_city
from pipeline.crops.context_frames import context_store, count_frames, named_frames
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.quality import decode
from pipeline.doctor.city import check_context_frames
from pipeline.erasure.expire import expire_context_frames
from pipeline.ingest.looks import View
from pipeline.ingest.undo import undo
from pipeline.store import Store
from schemas.city_file import City
from schemas.feeds import Feed
from tests.helpers.pictures import UNITS
from tests.helpers.red_detector import RedDetector
from tests.helpers.video_files import walk, write_video

C1 = "d1/s1/b1/c1"
MASK = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.2), (0.0, 0.2))
STARTED = datetime(2026, 1, 1, 8, tzinfo=UTC)


@pytest.fixture
def crops(store: Store) -> CropStore:
    store_city(store, City.model_validate({"units": UNITS}))
    return CropStore(store.settings)


def frames() -> list[np.ndarray]:
    """One walks above, and one below, who comes later."""
    above, below = walk(40), [walk(1, 0)[0] * 0 + 120] * 15 + walk(25, 8)
    return [np.concatenate(pair) for pair in zip(above, below, strict=True)]


def taken(store: Store, crops: CropStore, paths: Sequence[Path], **view: object) -> None:
    for path in paths:
        [recording] = recordings_at(path)
        feed = Feed.model_validate({"camera": C1, "address": str(path)})
        view_ = View(C1, masks=(MASK,), **view)  # type: ignore[arg-type]
        assert take(store, crops, feed, recording, view_, RedDetector()).refused is None


def files(store: Store) -> list[Path]:
    return [path for path in context_store(store.settings).root.rglob("*") if path.is_file()]


def rows(store: Store) -> list[tuple[object, ...]]:
    with store.begin() as connection:
        found = connection.execute(
            text("SELECT captured_at, picture, width_px, height_px FROM context_frame ORDER BY 1")
        )
        return [tuple(row) for row in found]


def test_each_track_has_the_frame_of_its_first_crop(store: Store, crops: CropStore, tmp_path: Path) -> None:
    video = write_video(tmp_path / "2026-01-01T08-00-00Z.avi", frames())
    taken(store, crops, [video])
    assert rows(store) == [] and files(store) == []  # nobody asked for them
    with store.begin() as connection:
        crops_before = connection.execute(text("SELECT key FROM crop ORDER BY key")).all()
        connection.execute(text("DELETE FROM camera_file"))
    taken(store, crops, [video], context_frames=True)
    with store.begin() as connection:
        assert connection.execute(text("SELECT key FROM crop ORDER BY key")).all() == crops_before
        first = connection.execute(text("SELECT min(captured_at) FROM crop GROUP BY track ORDER BY 1")).scalars().all()
    found = rows(store)
    assert [row[0] for row in found] == first and len(found) == 2
    assert [row[2:] for row in found] == [(320, 480)] * 2 and len(files(store)) == 2
    for captured_at, sha256, *_ in found:
        assert isinstance(captured_at, datetime) and isinstance(sha256, memoryview)
        picture = decode(context_store(store.settings).get(place_of_crop(C1, captured_at), bytes(sha256)))
        assert picture[:90].max() <= 8 and picture[104:].mean() > 80  # the mask's edge lies at row 96
    assert all(file.stat().st_mode & 0o077 == 0 for file in files(store))
    assert check_context_frames(store).found == "2 context frames, each kept for 7 days"


def test_a_track_that_crosses_a_seam_has_one(store: Store, crops: CropStore, tmp_path: Path) -> None:
    shown = frames()
    parts = [
        write_video(tmp_path / f"20260101_080000-{begin}00Z.avi", shown[begin:end])
        for begin, end in pairwise((0, 7, 40))
    ]
    taken(store, crops, parts, context_frames=True)
    assert len(rows(store)) == 2 == len(files(store))


def test_they_go_with_their_batch_and_by_age(store: Store, crops: CropStore, tmp_path: Path) -> None:
    first = write_video(tmp_path / "2026-01-01T08-00-00Z.avi", frames())
    second = write_video(tmp_path / "2026-01-01T09-00-00Z.avi", frames()[5:])
    taken(store, crops, [first, second], context_frames=True)
    assert len(rows(store)) == 4 and len(files(store)) == 3  # two tracks begin in equal frames
    with store.begin() as connection:
        batches = connection.scalars(text("SELECT id FROM ingest_batch ORDER BY id")).all()
    undo(store, crops, batches[0], operator="anna", reason="wrong")
    assert len(rows(store)) == 2 == len(files(store)) and all(row[0].hour == 9 for row in rows(store))  # type: ignore[attr-defined]
    assert expire_context_frames(store) == 0 and len(rows(store)) == 2
    with store.begin() as connection:
        columns = "camera, track, captured_at, picture, width_px, height_px, batch_id"
        age = f"INSERT INTO context_frame ({columns}, stored_at) SELECT {columns}, now() - interval '8 days' FROM gone"
        connection.execute(text("CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT * FROM context_frame"))
        connection.execute(text("DELETE FROM context_frame"))
        connection.execute(text(age))
    assert check_context_frames(store).found == "2 context frames, each kept for 7 days; 2 are older"
    files(store)[0].unlink()
    assert "1 of them have no file" in check_context_frames(store).found
    assert expire_context_frames(store) == 2
    assert rows(store) == [] and files(store) == []
    with store.begin() as connection:
        assert count_frames(connection) == 0 and named_frames(connection) == set()
