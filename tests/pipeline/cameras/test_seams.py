"""Recorded files that follow each other give the crops of one long file, in whatever order and however interrupted."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.cameras import seams
from pipeline.cameras.changes import remove_camera
from pipeline.cameras.recordings import Outcome, Recording, done, recordings_at, take
from pipeline.cameras.rows import write_feed
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.ingest.look_state import CLASSES, packed, unpacked
from pipeline.ingest.looks import View, look_options
from pipeline.ingest.undo import undo
from pipeline.ingest.video import ingest_video
from pipeline.store import Store
from reid_core.detection import Boxes, Frame
from schemas.errors import InputError
from schemas.feeds import Feed
from tests.helpers.red_detector import RedDetector
from tests.helpers.video_files import walk, write_video

C1 = "d1/s1/b1/c1"
START = datetime(2026, 1, 1, 8, tzinfo=UTC)
#: One walks through and crosses both seams, one stands and walks at last, and a thing that looks like one never moves.
THING = walk(1)[0]
THING[120:140, 10:50] = (90, 20, 200)
FRAMES = [
    np.concatenate([walking, standing, THING])
    for walking, standing in zip(walk(60, 4), [*[walk(1)[0]] * 45, *walk(15, 8)], strict=True)
]
SEAMS = (0, 17, 40, 60)  # frames of a tenth of a second; the first seam lies within a half second of one crop

Crop = tuple[datetime, int, Sequence[float], bytes]


@pytest.fixture
def crops(city_store: Store) -> CropStore:
    return CropStore(city_store.settings)


def there(store: Store) -> list[Crop]:
    """The crops that take part: when, the number of the track, where in the frame, and the picture."""
    with store.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT captured_at, track, box, picture FROM crop WHERE withdrawn_at IS NULL ORDER BY captured_at, box"
            )
        ).all()
    return [(row.captured_at, int(row.track.split("-")[-1]), row.box, bytes(row.picture)) for row in rows]


def tracks(store: Store) -> int:
    with store.begin() as connection:
        return int(connection.scalar(text("SELECT count(DISTINCT track) FROM crop WHERE withdrawn_at IS NULL")) or 0)


@pytest.fixture
def long(store: Store, city_store: Store, crops: CropStore, tmp_path: Path) -> list[Crop]:
    """The crops of all frames in one file; taken back again."""
    path = write_video(tmp_path / "long.avi", FRAMES)
    report = ingest_video(city_store, crops, str(path), C1, detector=RedDetector(), start=START)
    found = there(city_store)
    assert len(found) >= 12 and tracks(city_store) == 2 and report.batch is not None
    undo(city_store, crops, report.batch, operator="anna", reason="only to compare")
    return found


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """The same frames in three files."""
    folder = tmp_path / "recorder"
    folder.mkdir()
    return [
        write_video(folder / f"{START + timedelta(seconds=begin / 10):%Y%m%d_%H%M%S-%fZ}.avi", FRAMES[begin:end])
        for begin, end in pairwise(SEAMS)
    ]


def taking(store: Store, crops: CropStore, **options: object) -> Callable[[Path], Outcome]:
    def take_one(path: Path) -> Outcome:
        feed = Feed.model_validate({"camera": C1, "address": str(path), "looks_per_s": 10, **options})
        [recording] = recordings_at(path)
        return take(store, crops, feed, recording, View(C1, looks_per_s=10), RedDetector())

    return take_one


def recording_of(path: Path) -> Recording:
    [recording] = recordings_at(path)
    return recording


def test_files_that_follow_each_other_are_one(
    city_store: Store, crops: CropStore, long: list[Crop], parts: list[Path]
) -> None:
    take_one = taking(city_store, crops)
    lines = [take_one(parts[0]).line]
    given = there(city_store)
    lines += [take_one(part).line for part in parts[1:]]
    assert [line.endswith("going on from the file before") for line in lines] == [False, True, True]
    assert there(city_store) == long and tracks(city_store) == 2
    replaced = [crop for crop in given if crop not in long]
    assert len({track for _, track, *_ in replaced}) == 2  # at the end of the first file they looked like people
    pictures = {picture for *_, picture in long}
    kept = {crops.root / crops.name(place_of_crop(C1, at), picture) for at, *_, picture in long}
    assert len(pictures) == len(kept) and {file for file in crops.root.rglob("*") if file.is_file()} == kept


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_the_order_in_which_they_come_changes_nothing(
    city_store: Store, crops: CropStore, long: list[Crop], parts: list[Path], order: Sequence[int]
) -> None:
    take_one = taking(city_store, crops)
    left = [parts[number] for number in order]
    while left:
        again = take_one(left.pop(0)).again
        left += [part for part in parts if recording_of(part).key in again]
    assert there(city_store) == long and tracks(city_store) == 2
    assert list(done(city_store, C1).values()) == [None] * 3


def test_a_file_that_is_interrupted_goes_on_from_the_same_state(
    city_store: Store, crops: CropStore, long: list[Crop], parts: list[Path]
) -> None:
    take_one = taking(city_store, crops)
    take_one(parts[0])
    feed = Feed.model_validate({"camera": C1, "address": str(parts[1]), "looks_per_s": 10})

    class Dies(RedDetector):
        left = 12

        def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
            self.left -= 1
            if not self.left:
                raise SystemExit
            return super().detect(frames)

    with pytest.raises(SystemExit):
        take(city_store, crops, feed, recording_of(parts[1]), View(C1, looks_per_s=10), Dies())
    for part in parts[1:]:
        take_one(part)
    assert there(city_store) == long


def test_a_gap_an_undo_and_other_options_begin_anew(city_store: Store, crops: CropStore, parts: list[Path]) -> None:
    take_one = taking(city_store, crops)
    take_one(parts[0])
    slow = Feed.model_validate({"camera": C1, "address": str(parts[1]), "looks_per_s": 5})
    line = take(city_store, crops, slow, recording_of(parts[1]), View(C1, looks_per_s=5), RedDetector()).line
    assert "going on" not in line
    late = parts[1].rename(parts[1].with_name("20260101_080003Z.avi"))  # 1.3 s after the end
    assert "going on" not in take_one(late).line
    options = look_options(View(C1), RedDetector())
    follows = START + timedelta(seconds=1.7)
    found = seams.before(city_store, C1, follows, options)
    assert found is not None and found.ends == follows
    rounded = seams.before(city_store, C1, follows + timedelta(seconds=0.9), options)
    assert rounded is not None and rounded.name == found.name  # a file's name may state whole seconds
    with city_store.begin() as connection:
        batch = connection.scalar(text("SELECT min(id) FROM ingest_batch"))
    undo(city_store, crops, int(batch or 0), operator="anna", reason="wrong")
    assert seams.before(city_store, C1, follows, options) is None
    assert not (city_store.settings.look_states_dir / C1 / found.name).exists()


def test_an_undo_of_a_file_has_the_one_before_it_taken_in_again(
    city_store: Store, crops: CropStore, parts: list[Path]
) -> None:
    """What was withdrawn of it, because this file went on from there, comes back."""
    take_one = taking(city_store, crops)
    take_one(parts[0])
    alone = there(city_store)
    take_one(parts[1])
    assert [crop for crop in alone if crop not in there(city_store)]
    with city_store.begin() as connection:
        batch = connection.scalar(text("SELECT max(id) FROM ingest_batch"))
    done_ = undo(city_store, crops, int(batch or 0), operator="anna", reason="wrong")
    assert done_.again == (str(parts[0]),)
    assert recording_of(parts[0]).key not in done(city_store, C1)
    assert take_one(parts[0]).again == ()
    assert there(city_store) == alone
    assert set(done(city_store, C1)) == {recording_of(part).key for part in parts[:2]}


def test_states_are_few_private_and_go_with_the_camera(
    city_store: Store, crops: CropStore, parts: list[Path], tmp_path: Path
) -> None:
    take_one = taking(city_store, crops)
    for number in range(5):
        take_one(write_video(tmp_path / f"20260102_08{number:02}00Z.avi", walk(20, 3 + number)))
    folder = city_store.settings.home / "cameras" / C1
    states = list(folder.iterdir())
    assert len(states) == seams.KEPT and all(state.stat().st_mode & 0o077 == 0 for state in states)
    states[0].write_bytes(b"damaged")
    with pytest.raises(InputError, match="is damaged"):
        unpacked(states[0].read_bytes())
    with city_store.begin() as connection:
        write_feed(connection, Feed.model_validate({"camera": C1, "address": str(parts[0])}))
    remove_camera(city_store, C1, operator="anna", reason="gone")
    assert not folder.exists()


def test_a_state_comes_back_as_it_was() -> None:
    value: dict[Any, Any] = {
        "numbers": [1, 2.5, float("-inf"), True, None, "a"],
        "times": (START, timedelta(microseconds=-3)),
        3: np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 5)),
    }
    back = unpacked(packed(value))
    assert back["numbers"] == value["numbers"] and back["times"] == value["times"]
    assert np.array_equal(back[3], value[3]) and back["empty"].shape == (0, 5)
    assert packed(back) == packed(value)
    assert len(CLASSES) == 8
