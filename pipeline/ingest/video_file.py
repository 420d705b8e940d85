"""Frames of a video file, each with its time; streamed, a few in memory at a time."""

import math
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from pipeline.ingest.capture import open_capture
from pipeline.ingest.frame_clock import LONGEST_GAP_S, FrameClock, NoTimesError
from pipeline.ingest.raw_rate import raw_rate
from reid_core.detection import Frame
from schemas.errors import InputError

#: Start of a file for which no start is given. Times within it, and against other such files, still hold.
START = datetime(2000, 1, 1, tzinfo=UTC)
SLOWEST_FPS, FASTEST_FPS = 0.01, 1000.0
#: Reading ends after this many frames in a row that cannot be read.
MOST_LOST_IN_A_ROW = 250
#: A file is said to end early when it holds less than this share of what it states, which may be an estimate.
WHOLE = 0.98
#: How the rate of a file is given to `urban-reid ingest video`.
RATE_BY = "urban-reid ingest video FILE --fps 25"
_MATROSKA = b"\x1a\x45\xdf\xa3"


class VideoFile:
    """A video file. Iterate once; gives (time, time since the first frame,
    frame (h, w, 3) BGR), with times that rise strictly.

    `start` is when the first frame was taken. `fps` counts the times instead of reading the file's time stamps;
    `rate_by`: the command that gives it, for the message of a file that needs it. `total`
    is how many frames the file states, 0 where it states nothing; `read` counts the frames read so far, `lost` those
    between them that could not be read. `notes` says, after the iteration, what was wrong with the file.

    Raises InputError for a file that cannot be read, or that states no times where `fps` is not given.
    """

    live = False
    clock = None  # its times do not come from the machine's clock
    passed_over = 0  # frames

    def __init__(self, path: Path, start: datetime | None, fps: float | None = None, *, rate_by: str = RATE_BY) -> None:
        if fps is not None and not SLOWEST_FPS <= fps <= FASTEST_FPS:
            raise InputError(f"a frame rate of {fps:g}/s is not possible; give {SLOWEST_FPS:g} to {FASTEST_FPS:g}")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self.name, self._path = str(path), path
        self.start, self._fps, self._rate_by = start or START, fps, rate_by
        self._capture = _open(path)
        count, stated_fps = self._capture.get(cv2.CAP_PROP_FRAME_COUNT), self._capture.get(cv2.CAP_PROP_FPS)
        known = 0 < count < 1e9 and math.isfinite(stated_fps) and stated_fps > 0
        self.total = int(count) if known else 0
        self._stated_fps = stated_fps if known else 1.0
        self.read = self.lost = 0
        self.notes: list[str] = []
        with path.open("rb") as file:
            self._matroska = file.read(len(_MATROSKA)) == _MATROSKA
        # Outside a container, FFmpeg makes times up at 25 frames/s; the count of such a stream is negative. So is that
        # of a Matroska file that was written to a pipe, but that states its times.
        if fps is None and not count > 0 and not self._matroska:
            self._fps = raw_rate(path)
            if self._fps is None and not count >= 0:
                self._capture.release()
                raise self._no_times()

    def __iter__(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        try:
            yield from self._timed()
        except NoTimesError:
            raise self._no_times() from None
        finally:
            self._capture.release()
        if not self.read:
            raise InputError(f"{self.name}: holds no frame that can be read")

    def last_moment(self) -> datetime | None:
        """Time of the file's last frame, found by seeking; None where it is not found that way."""
        if not self.total:
            return None
        capture = _open(self._path)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self.total - 1)
        found, stamp_s = capture.grab(), _stamp_s(capture)
        capture.release()
        if not found or not 0 <= stamp_s <= LONGEST_GAP_S:
            return None
        return self.start + timedelta(seconds=(self.total - 1) / self._fps if self._fps else stamp_s)

    def _timed(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        clock: FrameClock[Frame] = FrameClock()
        end_s = 0.0
        for frame in self._decoded():
            stamp_s = _stamp_s(self._capture)
            end_s = max(end_s, stamp_s)
            if self._fps is not None:
                yield self._at((self.read + self.lost - 1) / self._fps, frame)
                continue
            for seconds, certain in clock.push(stamp_s, frame):
                yield self._at(seconds, certain)
        for seconds, certain in clock.flush():
            yield self._at(seconds, certain)
        if clock.first_bridged_s is not None:
            times = "once" if clock.bridged == 1 else f"{clock.bridged} times"
            self.notes.append(
                f"the time stamps step back, jump or repeat {times}, first after {clock.first_bridged_s:.1f} s; the "
                "frames there are spaced like their neighbors"
            )
        if self.lost:
            self.notes.append(f"{self.lost} of {self.read + self.lost} frames could not be read")
        # Both must say so: the count may be an estimate from an uneven rate, and the stamps may begin anew.
        length_s = self.total / self._stated_fps
        if self.read + self.lost < WHOLE * self.total and end_s + 1 / self._stated_fps < WHOLE * length_s:
            self.notes.append(f"the file ends after {end_s:.1f} s of the {length_s:.1f} s that it states")

    def _decoded(self) -> Iterator[Frame]:
        """The frames that can be decoded, up to the end of the file or MOST_LOST_IN_A_ROW that cannot."""
        failed = 0
        while failed < MOST_LOST_IN_A_ROW:
            done, frame = self._capture.read()
            if not done:
                failed += 1  # a damaged frame, or the end of the file, where each further try fails too
                continue
            self.lost, failed = self.lost + failed, 0
            self.read += 1
            first = self._capture.get(cv2.CAP_PROP_PTS)  # in frames
            if self.read == 1 and self._matroska and 0 < first < self.total:
                self.total -= int(first)  # a Matroska file's length counts from time 0, not from its first frame
            yield np.asarray(frame, np.uint8)

    def _at(self, seconds: float, frame: Frame) -> tuple[datetime, timedelta, Frame]:
        return self.start + timedelta(seconds=seconds), timedelta(seconds=seconds), frame

    def _no_times(self) -> InputError:
        return InputError(
            f"{self.name}: states no times for its frames; give the rate at which it was recorded, such as 25, with "
            f"`{self._rate_by}`"
        )


def _open(path: Path) -> cv2.VideoCapture:
    """Opens a file below any folder. OpenCV takes paths in UTF-8 only; a file with another path is opened by a link."""
    fault = "is no video that can be read"
    if _is_utf8(path.absolute()):
        return open_capture(str(path.absolute()), str(path), fault)
    with tempfile.TemporaryDirectory(prefix="urban-reid-") as folder:
        link = Path(folder) / ("video" + (path.suffix if _is_utf8(path.suffix) else ""))
        if not _is_utf8(link):
            raise InputError(f"{path}: neither this path nor that of TMPDIR is UTF-8; rename one of them")
        link.symlink_to(path.absolute())
        return open_capture(str(link), str(path), fault)


def _is_utf8(path: Path | str) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Python keeps other bytes as lone surrogates
        return False
    return True


def _stamp_s(capture: cv2.VideoCapture) -> float:
    """Time stamp of the frame that was read last, seconds from the file's first."""
    return float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
