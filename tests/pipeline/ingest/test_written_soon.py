"""What a stream's process loses when it is killed: the crops that it had not written yet."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

from pipeline.ingest.crop_writer import Candidate
from pipeline.ingest.frames import Frames
from pipeline.ingest.looks import CROP_EVERY_S, WRITE_EVERY, Looks, View
from pipeline.ingest.stillness import HOLD_S
from pipeline.ingest.tracking import LOST_AFTER_S
from reid_core.detection import Frame
from tests.helpers.red_detector import RedDetector
from tests.helpers.video_files import walk

START = datetime(2026, 1, 1, 8, tzinfo=UTC)


class Stream:
    """Frames of a live camera, ten a second."""

    live, clock, total, read = True, None, 0, 0

    def __init__(self, frames: list[Frame]) -> None:
        self.frames, self.now = frames, START

    def __iter__(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        for number, frame in enumerate(self.frames):
            since = timedelta(seconds=number / 10)
            self.now = START + since
            yield self.now, since, frame


def waits(frames: list[Frame]) -> list[float]:
    """How long each crop waited from its frame until it was written, seconds."""
    stream = Stream(frames)
    found: list[float] = []
    unwritten: list[Candidate] = []
    for candidate in Looks(cast("Frames", stream), View("d1/s1/b1/c1"), RedDetector(), "tag"):
        if candidate is not None:
            unwritten.append(candidate)
            continue
        found += [(stream.now - crop.captured_at).total_seconds() for crop in unwritten]
        unwritten.clear()
    return found + [(stream.now - crop.captured_at).total_seconds() for crop in unwritten]


def test_crops_of_who_walks_are_written_within_seconds() -> None:
    there_and_back = [*walk(60, 4), *reversed(walk(60, 4))]
    found = waits(there_and_back * 4)
    most = WRITE_EVERY.total_seconds() + LOST_AFTER_S + CROP_EVERY_S
    assert len(found) > 60 and max(found) <= most
    assert max(found) > WRITE_EVERY.total_seconds() - 1  # the bound is near


def test_crops_of_who_stands_wait_until_it_is_decided_what_that_is() -> None:
    standing = []
    for number in range(600):  # whose arms move all the time, and who does not
        frame = walk(1)[0].copy()
        frame[100 + number % 14 : 120 + number % 14, 15:45] = (90, 90, 250)
        standing.append(frame)
    found = waits(standing)
    most = HOLD_S + WRITE_EVERY.total_seconds() + LOST_AFTER_S + CROP_EVERY_S
    assert len(found) > 60 and HOLD_S < max(found) <= most
