import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.quality import decode
from pipeline.ingest import clocks, frames, looks
from pipeline.ingest.batches import batches
from pipeline.ingest.crop_writer import CLOCK_SLACK
from pipeline.ingest.frames import open_frames
from pipeline.ingest.video import ingest_video
from pipeline.ingest.video_file import START
from pipeline.store import Store
from reid_core.detection import Boxes, Frame, open_detector
from reid_core.detection.hog import HogDetector
from schemas.crops import IngestReport
from schemas.errors import CityError, InputError
from schemas.settings import Settings
from tests.helpers.assets import asset
from tests.helpers.red_detector import RedDetector
from tests.helpers.rtsp_camera import PASSWORD, USER, camera
from tests.helpers.video_files import walk, write_matroska, write_video

C1 = "d1/s1/b1/c1"


def rows(store: Store) -> list[tuple[datetime, str, list[float], bytes]]:
    with store.begin() as connection:
        found = connection.execute(
            text("SELECT captured_at, track, box, picture FROM crop ORDER BY captured_at, track")
        )
        return [(moment, track, box, bytes(picture)) for moment, track, box, picture in found]


def test_a_walker_becomes_two_crops_a_second(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    start = datetime(2026, 1, 1, 8, 0, tzinfo=UTC)
    path = write_video(tmp_path / "walk.avi", walk(40))
    seen: list[tuple[int, int]] = []
    report = ingest_video(
        city_store,
        crops,
        str(path),
        C1,
        detector=RedDetector(),
        start=start,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (40, 40)
    found = rows(city_store)
    assert report == IngestReport(batch=report.batch, read=len(found), written=len(found))
    assert 7 <= len(found) <= 9 and len({track for _, track, _, _ in found}) == 1
    assert re.fullmatch(r"20260101T080000-[0-9a-f]{8}-1", found[0][1])
    for moment, _, box, picture in found:
        number = round((moment - start) / timedelta(seconds=0.1))
        assert moment == start + timedelta(seconds=0.1) * number
        assert box[0] + box[2] / 2 == pytest.approx(10 + 6 * number + 20, abs=3)
        assert box[1] + box[3] / 2 == pytest.approx(120, abs=3) and 100 <= box[3] <= 116
        decoded = decode(crops.get(place_of_crop(C1, moment), picture))
        assert decoded.shape[:2] == (box[3], box[2])
        assert decoded[..., 0].mean() > decoded[..., 2].mean() + 50  # red is red
    again = ingest_video(city_store, crops, str(path), C1, detector=RedDetector(), start=start)
    assert (again.written, again.already_there) == (0, len(found))


def tracks(store: Store) -> set[str]:
    with store.begin() as connection:
        return set(connection.execute(text("SELECT DISTINCT track FROM crop WHERE withdrawn_at IS NULL")).scalars())


def test_two_ingests_share_no_track(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    """Two files with one start at one camera, and one file with two detectors: each has its track 1."""

    class OtherDetector(RedDetector):
        name = "other"

        def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
            return [boxes + np.array([4, 0, 0, 0, 0]) for boxes in super().detect(frames)]

    first, second = (write_video(tmp_path / f"{name}.avi", walk(40, step)) for name, step in (("a", 6), ("b", 5)))
    for path in (first, second):
        ingest_video(city_store, crops, str(path), C1, detector=RedDetector())
    assert len(tracks(city_store)) == 2
    with pytest.raises(InputError, match=r"batch 1: \d crops, camera d1/s1/b1/c1, detector red, start 2000.*--replace"):
        ingest_video(city_store, crops, str(first), C1, detector=OtherDetector())
    ingest_video(city_store, crops, str(first), C1, detector=OtherDetector(), again="add")
    assert len(tracks(city_store)) == 3


def test_an_ingest_with_the_wrong_start_is_replaced(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "walk.avi", walk(40)))
    wrong, right = datetime(2026, 1, 1, 8, tzinfo=UTC), datetime(2026, 1, 1, 9, tzinfo=UTC)
    ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=wrong)
    first = tracks(city_store)
    with pytest.raises(InputError, match="--add adds to it, --replace undoes that first"):
        ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=right)
    ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=right, again="replace")
    assert all(track.startswith("20260101T090000-") for track in tracks(city_store))
    again = ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=wrong, again="replace")
    assert tracks(city_store) == first and again.written > 0


def test_a_thing_that_never_moves_is_left_out_and_counted(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    frames = walk(80, per_frame=3)
    for frame in frames:
        frame[180:236, 20:60] = (20, 20, 200)
    path = str(write_video(tmp_path / "walk.avi", frames))
    report = ingest_video(city_store, crops, path, C1, detector=RedDetector())
    found = rows(city_store)
    assert report.read == report.written == len(found) >= 12 and 14 <= report.static_count <= 16
    assert all(box[1] < 100 for _, _, box, _ in found)
    assert re.fullmatch(
        rf"nothing moves in 1 track, as in a chair that is taken for a person; their {report.static_count} crops were "
        r"left out, the first: 2000-01-01T00:00:00.\d+\+00:00, track \d, box \(18, 177, 44, 62\)",
        report.notes[0],
    )


def test_a_region_gives_boxes_in_the_whole_frame(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "walk.avi", walk(40)))
    ingest_video(city_store, crops, path, C1, detector=RedDetector(), region=(120, 40, 150, 180))
    found = rows(city_store)
    assert found and all(box[0] >= 120 and box[0] + box[2] <= 270 and 60 < box[1] < 75 for _, _, box, _ in found)
    assert found[0][0] > START + timedelta(seconds=1.5)
    for region in ((300, 0, 100, 100), (-1, 0, 10, 10), (0, 0, 0, 10)):
        with pytest.raises(InputError, match="does not lie within the frame of 320 x 240 pixels"):
            ingest_video(city_store, crops, path, C1, detector=RedDetector(), region=region, again="replace")
    assert rows(city_store) == found


def test_of_many_frames_a_second_ten_are_used(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    detected: list[int] = []

    class Counting(RedDetector):
        def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
            detected.append(1)
            return super().detect(frames)

    path = str(write_video(tmp_path / "walk.avi", walk(90, per_frame=2), per_second=30.0))
    report = ingest_video(city_store, crops, path, C1, detector=Counting())
    assert len(detected) == 30 and 4 <= report.written <= 7


@pytest.mark.parametrize("looks_per_s", [5, 2])
def test_few_looks_a_second_are_enough_for_one_who_walks_by(
    city_store: Store, crops: CropStore, tmp_path: Path, looks_per_s: float
) -> None:
    path = str(write_video(tmp_path / "walk.avi", walk(40, 7)))  # at 2 looks a second, boxes overlap by a tenth
    report = ingest_video(city_store, crops, path, C1, detector=RedDetector(), looks_per_s=looks_per_s)
    assert report.written >= 5 and len(tracks(city_store)) == 1


def test_an_empty_scene_is_noted(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    path = write_video(tmp_path / "empty.avi", [np.full((240, 320, 3), 90, np.uint8)] * 5)
    report = ingest_video(city_store, crops, str(path), C1, detector=HogDetector())
    assert report == IngestReport(notes=("no people were found in 5 frames",))


def test_a_video_cut_short_gives_the_crops_it_holds(city_store: Store, crops: CropStore, tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.avi", walk(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = ingest_video(city_store, crops, str(path), C1, detector=RedDetector())
    assert report.written >= 2
    assert re.fullmatch(r"the file ends after [12]\.\d s of the 4\.0 s that it states", report.notes[0])


def test_unusable_sources_and_options_are_refused_in_one_line(
    city_store: Store, crops: CropStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = str(write_video(tmp_path / "walk.avi", walk(5)))
    none = write_video(tmp_path / "none.avi", [])
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "zero.mp4").touch()
    capfd.readouterr()
    refused: list[tuple[str, dict[str, object], str]] = [
        (good, {"start": datetime(2026, 1, 1)}, "has no zone"),  # noqa: DTZ001 - it must have no zone
        (good, {"start": datetime(2027, 1, 1, tzinfo=UTC), "now": datetime(2026, 1, 1, tzinfo=UTC)}, "in the future"),
        (str(tmp_path / "missing.avi"), {}, "no such file"),
        (str(tmp_path), {}, "no such file"),
        (str(none), {}, "is no video that can be read|holds no frame"),
        (str(tmp_path / "text.avi"), {}, "is no video that can be read"),
        (str(tmp_path / "zero.mp4"), {}, "is no video that can be read"),
        ("http://example.org/a.mp4", {}, "http:// is not supported"),
        ("rtsp:///path", {}, "no usable host"),
        ("rtsp://[::1/path", {}, "no usable host"),
        ("rtsp://127.0.0.1:1/x", {"start": START}, "belong to a file"),
        ("rtsp://127.0.0.1:1/x", {}, "rtsp://127.0.0.1:1: does not answer"),
        ("rtsp://op:s3cret@127.0.0.1:1/x", {}, "leave user and password out of it"),
        ("rtsp://127.0.0.1:1/user=op&password=s3cret", {}, "leave user and password out of it"),
    ]
    for source, options, message in refused:
        with pytest.raises(InputError, match=message) as caught:
            ingest_video(city_store, crops, source, C1, detector=RedDetector(), **options)  # type: ignore[arg-type]
        assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(CityError, match="nearest: d1/s1/b1/c1"):
        ingest_video(city_store, crops, good, "d1/s1/b1/c9", detector=RedDetector())
    assert rows(city_store) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".ts"])
def test_a_file_that_ends_in_the_future_is_refused_before_anything_is_written(
    city_store: Store, crops: CropStore, tmp_path: Path, suffix: str
) -> None:
    path = str(write_video(tmp_path / f"walk{suffix}", walk(40)))
    now = datetime(2026, 1, 1, 8, tzinfo=UTC)
    start = now + timedelta(seconds=58)  # cameras' clocks may run ahead by a minute
    with pytest.raises(InputError, match=r"begins at .* 08:00:58 UTC and ends at .* 08:01:01 UTC, in the future"):
        ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=start, now=now)
    with pytest.raises(InputError, match=r"ends at .* 08:01:17 UTC, in the future; correct --start or --fps"):
        ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=start, fps=2, now=now)
    assert rows(city_store) == []
    start -= timedelta(seconds=2)
    assert ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=start, now=now).written >= 7


def test_crops_in_the_future_are_refused_where_the_end_is_not_known(
    city_store: Store, crops: CropStore, tmp_path: Path
) -> None:
    path = str(write_matroska(tmp_path / "walk.mkv", walk(40), range(36_000, 36_040)))
    now = datetime(2026, 1, 1, 8, tzinfo=UTC)
    start = now + timedelta(seconds=58)
    with pytest.raises(InputError, match=r"2026-01-01T08:01:00.*, track 1: time .* lies in the future; no crops"):
        ingest_video(city_store, crops, path, C1, detector=RedDetector(), start=start, now=now)
    assert rows(city_store) == []


def with_password(store: Store, password: str = PASSWORD) -> Store:
    secrets = {"rtsp_user": SecretStr(USER), "rtsp_password": SecretStr(password)}
    store.settings = store.settings.model_copy(update=secrets)
    return store


def interrupt_at(frame: int) -> Callable[[int, int], None]:
    """A progress that interrupts the program, as Ctrl-C does, when a frame is read."""
    return lambda read, total: os.kill(os.getpid(), signal.SIGINT) if read == frame else None


def test_a_live_camera_behind_a_password(
    city_store: Store, crops: CropStore, capfd: pytest.CaptureFixture[str]
) -> None:
    before = datetime.now(UTC)
    with camera(walk(120, per_frame=2)) as serving:
        report = ingest_video(
            with_password(city_store),
            crops,
            serving.address,
            C1,
            detector=RedDetector(),
            progress=interrupt_at(15),
        )
    after = datetime.now(UTC)
    assert serving.authorized
    found = rows(city_store)
    assert report.written == len(found) >= 2
    assert all(before <= moment <= after for moment, _, _, _ in found)
    with city_store.signed_in() as connection:
        everything = str([tuple(row) for row in connection.execute(text("SELECT crop::text FROM crop"))])
        everything += str([tuple(row) for row in connection.execute(text("SELECT audit::text FROM audit"))])
    shown = "".join(capfd.readouterr())
    for secret in (PASSWORD, "s3cret", USER, serving.address):
        assert secret not in everything + shown + repr(report) + repr(city_store.settings)


def test_a_wrong_password_is_one_line_without_it(
    city_store: Store, crops: CropStore, capfd: pytest.CaptureFixture[str]
) -> None:
    with camera(walk(5)) as serving, pytest.raises(InputError, match="refuses its user and password") as caught:
        ingest_video(with_password(city_store, "wr0ng"), crops, serving.address, C1, detector=RedDetector())
    assert not serving.authorized
    assert "wr0ng" not in "".join(capfd.readouterr()) + str(caught.value)


def test_interrupting_a_live_camera_writes_what_was_seen(city_store: Store, crops: CropStore) -> None:
    with camera(walk(300, per_frame=1)) as serving:
        report = ingest_video(
            with_password(city_store), crops, serving.address, C1, detector=RedDetector(), progress=interrupt_at(40)
        )
    assert report.written == len(rows(city_store)) >= 1


def test_a_live_camera_that_does_not_come_back_is_an_error_after_what_was_seen_is_written(
    city_store: Store, crops: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "PATIENCE_S", 2.0)
    with camera(walk(30)) as serving, pytest.raises(InputError, match=r"did not come back; \d+ crops were w") as caught:
        ingest_video(with_password(city_store), crops, serving.address, C1, detector=RedDetector())
    assert f" {len(rows(city_store))} crops were written" in str(caught.value) and len(rows(city_store)) >= 2
    assert PASSWORD not in str(caught.value)


class SetClock:
    """The machine's wall clock, set to another time while frames are read."""

    def __init__(self, by_frame: dict[int, timedelta]) -> None:
        self.by_frame = by_frame
        self.shift = timedelta()
        self.read = 0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def progress(self, read: int, total: int) -> None:
        if read == 75:
            os.kill(os.getpid(), signal.SIGINT)
        self.read, self.shift = read, self.by_frame.get(read, self.shift)


@pytest.mark.parametrize(
    ("by_frame", "jumps"),
    [
        ({40: -timedelta(minutes=30)}, ["set back by 1800."]),
        ({40: timedelta(days=1), 60: timedelta()}, ["set ahead by 86400.", "set back by 86400."]),
    ],
)
def test_a_clock_that_is_set_stops_no_live_camera(
    city_store: Store,
    crops: CropStore,
    monkeypatch: pytest.MonkeyPatch,
    by_frame: dict[int, timedelta],
    jumps: list[str],
) -> None:
    clock = SetClock(by_frame)
    looked: list[int] = []  # how many frames were read at each look

    class Counting(RedDetector):
        def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
            looked.append(clock.read)
            return super().detect(frames)

    monkeypatch.setattr(clocks, "wall", clock)
    monkeypatch.setattr(looks, "WRITE_EVERY", timedelta(seconds=0.5))  # so that crops are written before it is set
    with camera(walk(90, per_frame=3)) as serving:
        report = ingest_video(
            with_password(city_store), crops, serving.address, C1, detector=Counting(), progress=clock.progress
        )
    # Frames come ten a second, which is as often as they are looked at.
    assert len([read for read in looked if read > 62]) > 0.3 * (clock.read - 62) > 1
    said = [note for note in report.notes if "clock was set" in note]
    assert len(said) == len(jumps) and all(jump in note for jump, note in zip(jumps, said, strict=True))
    with city_store.begin() as connection:
        taken = connection.execute(text("SELECT captured_at, batch_id FROM crop ORDER BY id")).all()
        stretches = {batch.id: batch for batch in batches(connection)}
    assert len(taken) == report.read == report.written >= 8  # none is left out
    assert {row.batch_id for row in taken} == stretches.keys() and len(stretches) > 1
    assert list(report.notes) == stretches[max(stretches)].notes
    present = clock()
    if len(jumps) == 1:
        before = [row for row in taken if row.captured_at > present + CLOCK_SLACK]
        assert {row.batch_id for row in before} == {1}
        assert any(f"{len(before)} crops of batch 1 have times up to" in note for note in stretches[1].notes)
    else:
        wrong = {row.batch_id for row in taken if row.captured_at > present + CLOCK_SLACK}
        assert all(any(f"`urban-reid ingest undo {id_}`" in note for note in stretches[id_].notes) for id_ in wrong)
        assert 1 not in wrong


def test_slow_detection_on_a_live_camera_skips_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "PATIENCE_S", 2.0)
    settings = Settings(rtsp_user=SecretStr(USER), rtsp_password=SecretStr(PASSWORD))
    with camera(walk(30)) as serving:
        live = open_frames(serving.address, None, settings)
        ages = []
        for moment, _, _ in live:
            threading.Event().wait(0.4)
            ages.append((datetime.now(UTC) - moment).total_seconds())
    assert 2 <= live.read < 20  # of 30
    assert 20 <= live.read + live.passed_over <= 30
    assert max(ages) < 2.5  # one after the other they would be 9 s old at the end


@pytest.mark.parametrize("name", [pytest.param("hog", marks=pytest.mark.slow), "person-detection-retail-0013"])
def test_real_pedestrians(city_store: Store, crops: CropStore, tmp_path: Path, name: str) -> None:
    """The first four seconds of a public video, in which eight people walk."""
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    path = write_video(tmp_path / "part.avi", [np.asarray(capture.read()[1], np.uint8) for _ in range(40)])
    detector = open_detector(city_store.settings, name if name == "hog" else asset(f"models/{name}/{name}.xml"))
    report = ingest_video(city_store, crops, str(path), C1, detector=detector)
    found = rows(city_store)
    tracks = {track for _, track, _, _ in found}
    assert report.written == len(found) >= 8
    assert 2 <= len(tracks) <= 12
    for moment, _, box, picture in found:
        decoded = decode(crops.get(place_of_crop(C1, moment), picture))
        assert box[3] > box[2] and decoded.shape[:2] == (box[3], box[2])
    assert report.static_count == 0
    again = ingest_video(city_store, crops, str(path), C1, detector=detector)
    assert (again.written, again.already_there) == (0, len(found))


def test_the_video_door_loads_no_torch() -> None:
    code = "import sys, pipeline.ingest.video; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
