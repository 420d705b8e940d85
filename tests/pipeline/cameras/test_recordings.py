"""Recorded files: finished, taken in once, refused for good, whatever their pace."""

import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from pipeline.cameras.changes import Wanted, add_cameras, find_feed, set_camera
from pipeline.cameras.overview import STATES, overview
from pipeline.cameras.pacing import PacedFile
from pipeline.cameras.recordings import MOST_ATTEMPTS, SETTLED_S, Outcome, Recording, Watch, done, take
from pipeline.cameras.rows import write_health
from pipeline.cameras.worker import _Camera
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.looks import View
from pipeline.ingest.video import ingest_video
from pipeline.store import Store
from reid_core.detection import Boxes, Detector, Frame
from schemas.errors import CoreError, HomeError, InputError, PicturesUnavailable, StoreUnavailable
from schemas.feeds import Feed, Health
from tests.helpers.red_detector import RedDetector
from tests.helpers.video_files import walk, write_video

C1, C2 = "d1/s1/b1/c1", "d1/s1/b2/c2"
PART = 0, 0, 300, 240
NAME = "2026-01-01T08-00-00Z.avi"


@pytest.fixture
def crops(city_store: Store) -> CropStore:
    return CropStore(city_store.settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "recorder"
    place.mkdir()
    return place


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def finished(address: Path) -> list[Recording]:
    clock = Clock()
    watch = Watch(address, clock)
    watch.finished()
    clock.now += SETTLED_S
    return watch.finished()


def feed(address: Path, camera: str = C1, **values: object) -> Feed:
    return Feed.model_validate({"camera": camera, "address": f"{address}/", "looks_per_s": 10, **values})


def rows(store: Store, query: str = "SELECT camera, captured_at, box, picture FROM crop ORDER BY key") -> list[object]:
    with store.begin() as connection:
        return [tuple(row) for row in connection.execute(text(query)).all()]


def test_a_file_is_finished_when_it_does_not_change_any_more(folder: Path) -> None:
    clock = Clock()
    watch = Watch(folder, clock)
    (folder / "a.mp4").write_bytes(b"1")
    (folder / "notes.txt").write_bytes(b"1")
    (folder / ".b.mp4").write_bytes(b"1")
    (folder / "c.mp4.part").write_bytes(b"1")
    assert watch.finished() == []
    clock.now += SETTLED_S - 1
    (folder / "a.mp4").write_bytes(b"22")
    assert watch.finished() == []
    clock.now += 1
    assert watch.finished() == []  # it grew a second ago
    clock.now += SETTLED_S
    assert [each.file.name for each in watch.finished()] == ["a.mp4"]
    (folder / "day").mkdir()
    (folder / "c.mp4.part").rename(folder / "day" / "C.MP4")
    watch.finished()
    clock.now += SETTLED_S
    assert {each.file.name for each in watch.finished()} == {"a.mp4", "C.MP4"}
    (folder / "a.mp4").unlink()
    assert [each.file.name for each in watch.finished()] == ["C.MP4"]
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="no such file or folder"):
        watch.finished()


@pytest.fixture
def once(city_store: Store, crops: CropStore, folder: Path) -> Iterator[list[object]]:
    """The crops of the file, taken in at once; they are gone again."""
    write_video(folder / NAME, walk(40))
    start = datetime(2026, 1, 1, 8, tzinfo=UTC)
    ingest_video(city_store, crops, str(folder / NAME), C1, detector=RedDetector(), start=start)
    found = rows(city_store)
    assert len(found) >= 7
    yield found


@pytest.mark.parametrize("pace", [1, 20])
def test_a_file_gives_the_same_crops_at_any_pace(
    city_store: Store, crops: CropStore, folder: Path, once: list[object], pace: float
) -> None:
    with city_store.begin() as connection:
        connection.execute(text("UPDATE crop SET withdrawn_at = now()"))
        connection.execute(text("UPDATE ingest_batch SET undone_at = now(), undone_by = 'a', undo_reason = 'a'"))
    opened = partial(PacedFile, pace=pace)
    begun = datetime.now(UTC)
    take(city_store, crops, feed(folder), finished(folder)[0], View(C1), RedDetector(), open_file=opened)
    assert (datetime.now(UTC) - begun).total_seconds() >= 3.9 / pace
    assert rows(city_store) == once
    assert rows(city_store, "SELECT count(*) FROM crop WHERE withdrawn_at IS NULL") == [(len(once),)]


def test_a_file_is_taken_in_once_and_a_broken_one_is_refused(city_store: Store, crops: CropStore, folder: Path) -> None:
    write_video(folder / NAME, walk(40))
    (folder / "2026-01-01T07-00-00Z.avi").write_bytes(b"no video")
    write_video(folder / "2026-01-01T09-00-00Z.avi", walk(40, 5))
    write_video(folder / "2090-01-01T09-00-00Z.avi", walk(40, 4))
    said = [take(city_store, crops, feed(folder), each, View(C1), RedDetector()).line for each in finished(folder)]
    assert said[0].endswith("2026-01-01T07-00-00Z.avi is refused: is no video that can be read")
    assert "crops from 2026-01-01 08:00:00 UTC, by its name" in said[1]
    assert "crops from 2026-01-01 09:00:00 UTC, by its name" in said[2]
    assert "in the future" in said[3] and "is refused" in said[3]
    assert len(done(city_store, C1)) == 4
    assert [done(city_store, C1)[each.key] is None for each in finished(folder)] == [False, True, True, False]
    states = rows(city_store, "SELECT state, start_from FROM camera_file ORDER BY path")
    assert states == [("refused", "its name"), ("taken", "its name"), ("taken", "its name"), ("refused", "its name")]
    assert done(city_store, C2) == {}


def test_a_file_that_is_interrupted_is_taken_in_whole_and_nothing_twice(
    city_store: Store, crops: CropStore, folder: Path, once: list[object]
) -> None:
    def interrupt(read: int, total: int) -> None:
        if read == 30:
            raise KeyboardInterrupt

    [recording] = finished(folder)
    with pytest.raises(KeyboardInterrupt):
        take(city_store, crops, feed(folder), recording, View(C1), RedDetector(), progress=interrupt)
    assert done(city_store, C1) == {}
    take(city_store, crops, feed(folder), recording, View(C1), RedDetector())
    assert rows(city_store) == once and len(done(city_store, C1)) == 1


class Deadly(RedDetector):
    """Stands for a file at which the process dies: nothing after it is done."""

    def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
        raise SystemExit


def test_a_file_that_ends_the_process_again_and_again_is_refused(
    city_store: Store, crops: CropStore, folder: Path
) -> None:
    write_video(folder / NAME, walk(10))
    [recording] = finished(folder)
    deadly: Detector = Deadly()
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(SystemExit):
            take(city_store, crops, feed(folder), recording, View(C1), deadly)
        assert done(city_store, C1) == {}
    assert "ended the program 3 times" in take(city_store, crops, feed(folder), recording, View(C1), deadly).line
    assert len(done(city_store, C1)) == 1


class Away(RedDetector):
    """Stands for a file during which the core, the database or the disk is away."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
        if self.error is not None:
            raise self.error
        return super().detect(frames)


def test_what_is_no_fault_of_the_file_s_does_not_count(
    city_store: Store, crops: CropStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(folder / NAME, walk(40))
    [recording] = finished(folder)
    ours, _ = multiprocessing.Pipe()
    camera = _Camera(feed(folder), city_store.settings, ours, threading.Event())
    try:
        for error in (StoreUnavailable("away"), PicturesUnavailable("away"), HomeError("full"), CoreError("broken")):
            for _ in range(MOST_ATTEMPTS):
                with pytest.raises(type(error)):
                    camera._take(city_store, crops, recording, Away(error))
        assert rows(city_store, "SELECT attempts FROM camera_file") == [(0,)] and camera._report().state == "down"
        camera._uncount(away_at_first(city_store, monkeypatch), recording)
        assert done(city_store, C1) == {}
        kept = path.read_bytes()

        class Removed(RedDetector):
            def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
                path.unlink()
                raise InputError(f"{path}: cannot be read")

        with pytest.raises(HomeError, match="went away or was changed while it was read"):
            camera._take(city_store, crops, recording, Removed())
        path.write_bytes(kept)
        os.utime(path, ns=(recording.modified_ns, recording.modified_ns))
        outcome = camera._take(city_store, crops, recording, RedDetector())
        assert outcome is not None and "crops from" in outcome.line and done(city_store, C1) == {recording.key: None}
    finally:
        camera.close()


def away_at_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, whose database does not answer at first."""
    monkeypatch.setattr("pipeline.cameras.worker.TRY_AGAIN_S", 0.0)
    begin, left = store.begin, [1, 1]

    def begins() -> AbstractContextManager[Connection]:
        if left:
            left.pop()
            raise StoreUnavailable("away")
        return begin()

    monkeypatch.setattr(store, "begin", begins)
    return store


def test_a_camera_that_cannot_write_says_so_until_it_can(city_store: Store, folder: Path) -> None:
    ours, _ = multiprocessing.Pipe()
    stop = threading.Event()
    camera = _Camera(feed(folder), city_store.settings, ours, stop)
    try:
        camera._doing = "takes in a file"
        assert camera._wait_out(StoreUnavailable("the database does not answer"))
        assert (camera._report().state, camera._report().detail) == ("down", "the database does not answer")
        camera._go_on()
        assert (camera._report().state, camera._report().detail) == ("up", "takes in a file")
        stop.set()
        assert not camera._wait_out(StoreUnavailable("the database does not answer"))
    finally:
        camera.close()


def test_a_refused_file_is_tried_again_when_its_camera_is_changed(
    city_store: Store, crops: CropStore, folder: Path
) -> None:
    path = write_video(folder / "2026-01-01T08-00-00Z.mjpeg", walk(40))
    city_store.settings = city_store.settings.model_copy(update={"operator": "anna"})
    wanted = Wanted(Feed.model_validate({"camera": C1, "address": str(path)}))
    add_cameras(city_store, [wanted], operator="anna")
    [recording] = finished(path)
    asked = f"states no times for its frames; .* `urban-reid cameras set {C1} --fps 25`"

    def try_it() -> Outcome:
        given = find_feed(city_store, C1)
        return take(city_store, crops, given, recording, View(C1), RedDetector())

    first = try_it()
    assert first.refused is not None and re.match(asked, first.refused) and str(path) not in first.refused
    assert done(city_store, C1) == {recording.key: first.refused}
    old = find_feed(city_store, C1)
    with city_store.begin() as connection:
        write_health(connection, Health(camera=C1, state="refused", at=datetime.now(UTC), detail=first.refused))
        [there] = overview(connection, datetime.now(UTC) + timedelta(days=1))
    assert there.state == "refused" and STATES[there.state] == "refused"
    set_camera(city_store, C1, {"fps": 10}, {}, operator="anna")
    assert done(city_store, C1) == {}
    with city_store.begin() as connection:
        assert overview(connection, datetime.now(UTC))[0].state == "unknown"
    # A worker that still has the feed of before refuses nothing any more.
    assert take(city_store, crops, old, recording, View(C1), RedDetector()).refused is not None
    assert done(city_store, C1) == {}
    assert "crops from 2026-01-01 08:00:00" in try_it().line and done(city_store, C1) == {recording.key: None}
    set_camera(city_store, C1, {"looks_per_s": 2}, {}, operator="anna")
    assert done(city_store, C1) == {recording.key: None}  # what is taken in stays so


def test_what_was_taken_in_with_other_options_stays_unless_it_was_interrupted(
    city_store: Store, crops: CropStore, folder: Path
) -> None:
    write_video(folder / NAME, walk(40))
    [recording] = finished(folder)
    start = datetime(2026, 1, 1, 8, tzinfo=UTC)
    ingest_video(city_store, crops, str(folder / NAME), C1, detector=RedDetector(), start=start, region=PART)
    before = rows(city_store)
    line = take(city_store, crops, feed(folder), recording, View(C1), RedDetector()).line
    assert "is refused: was taken in before with other options" in line and rows(city_store) == before
    # Another camera may look at the same recording.
    line = take(city_store, crops, feed(folder, C2), recording, View(C2), RedDetector()).line
    assert "crops from 2026-01-01 08:00:00" in line and len(rows(city_store)) > len(before)
    with city_store.begin() as connection:
        connection.execute(text(f"UPDATE ingest_batch SET ended_at = NULL WHERE options->>'camera' = '{C1}'"))
    assert "crops from" in take(city_store, crops, feed(folder), recording, View(C1), RedDetector()).line
    undone = rows(city_store, "SELECT undone_at IS NOT NULL FROM ingest_batch ORDER BY id")
    assert undone == [(True,), (False,), (False,)]


def test_masked_areas_are_black_in_crops_and_give_none(city_store: Store, crops: CropStore, folder: Path) -> None:
    frames = walk(40)
    for frame in frames:
        frame[175:240, 200:300] = (20, 20, 200)  # a red thing, in the mask
    path = write_video(folder / NAME, frames)
    mask = ((0.6, 0.72), (1.0, 0.72), (1.0, 1.0), (0.6, 1.0))
    seen: list[Frame] = []

    class Watching(RedDetector):
        def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
            seen.extend(frames)
            return super().detect(frames)

    report = ingest_video(city_store, crops, str(path), C1, detector=Watching(), masks=(mask,))
    assert report.written >= 7 and report.static_count == 0
    assert all(not frame[176:, 195:].any() and frame[:170].any() for frame in seen)
