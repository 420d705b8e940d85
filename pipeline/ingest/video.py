"""The video door: detector -> tracker -> crops.

The detector runs on up to ten frames a second. Of each tracked person the best picture of every half second becomes a
crop: cut out with a margin around the box, complete in the frame, and not covered by somebody nearer to the camera. The
crop's track is the time of the first frame, the batch's digest and the tracker's number, so that two ingests share no
track unless they took in the same file in the same way. Static things give no crops.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.city.units import read_city
from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import quality
from pipeline.ingest.batches import Again, Source, ended, file_digest, path_text
from pipeline.ingest.crop_writer import Box, Candidate, Progress, is_future, take_in
from pipeline.ingest.frames import Frames, open_frames
from pipeline.ingest.stillness import StaticFilter
from pipeline.ingest.tracking import Track, Tracker, shared_areas
from pipeline.ingest.video_file import START
from pipeline.store import Store
from reid_core.detection import Detector, Frame
from schemas.city_file import unknown_unit
from schemas.crops import IngestReport
from schemas.errors import InputError
from schemas.times import from_us, to_us

SOURCE = "video"
LOOKS_PER_S = 10.0
CROP_EVERY_S = 0.5
PADDING = 0.05  # of the box's width and height, on each side
LEAST_HEIGHT_PX = 40
MOST_COVERED = 0.35  # share of a box behind another box that reaches lower in the frame
MOST_CUT_OFF = 0.1  # share of a box outside the frame
JPEG_QUALITY = 95
#: The crops of a live camera are written at least this often.
WRITE_EVERY = timedelta(seconds=10)

Region = tuple[int, int, int, int]  # x, y, width, height in the frame, pixels


def ingest_video(
    store: Store,
    crops: CropStore,
    source: str,
    camera: str,
    *,
    detector: Detector,
    start: datetime | None = None,
    fps: float | None = None,
    region: Region | None = None,
    again: Again = "refuse",
    operator: str | None = None,
    progress: Progress | None = None,
    now: datetime | None = None,
) -> IngestReport:
    """Detects and tracks the people in a video file or an RTSP stream, and writes their crops as those of `camera`.

    `start`: when a file's first frame was taken, with zone; video_file.START unless given. `fps`: the frame rate of a
    file that states no times, or whose times are wrong. `region`: the part of the frame that is used. `again`: what
    happens if the same file was taken in with another camera, start, rate, region or detector. `operator`: as for
    `take_in`. `progress` gets (frames read, frames in the file or 0) for each frame. `now` as for `is_future`.

    A stream is read until it ends or the program is interrupted (Ctrl-C); what was seen until then is written. The same
    file with the same start, rate, region and detector gives the same crops. Raises InputError, also for a file that
    ends in the future, and CityError for a camera that the city lacks.
    """
    cameras = {unit.code for unit in read_city(store).cameras()}
    if camera not in cameras:
        raise unknown_unit(camera, cameras)
    if start is not None and is_future(from_us(to_us(start)), now):
        raise InputError(f"the start {start.isoformat()} lies in the future")
    frames = open_frames(source, start, store.settings, fps)
    last = frames.last_moment()
    if last is not None and is_future(last, now):
        raise InputError(
            f"{frames.name}: begins at {start or START:%Y-%m-%d %H:%M:%S %Z} and ends at {last:%Y-%m-%d %H:%M:%S %Z}, "
            "in the future; correct --start or --fps"
        )
    taken = _source(frames, source, camera, detector, start, fps, region)
    found = _Crops(frames, taken, camera, detector, region, progress)
    report = take_in(
        store,
        crops,
        taken,
        found,
        total=0,
        operator=operator,
        again=again,
        stream=frames.clock,
        now=now,
    )
    notes = [] if report.read else [f"no people were found in {frames.read} frames"]
    if frames.passed_over:
        came = frames.read + frames.passed_over
        notes.append(
            f"{frames.passed_over} of {came} frames came while an earlier one was looked at, and were left out; a "
            "faster detector or a smaller --region looks at more"
        )
    static = found.static
    if static.first is not None:
        things = "1 track" if len(static.tracks) == 1 else f"{len(static.tracks)} tracks"
        notes.append(
            f"nothing moves in {things}, as in a chair that is taken for a person; their {static.crops} crops were "
            f"left out, the first: {static.first.name}, box {static.first.box}"
        )
    report = report.model_copy(update={"static_count": static.crops, "notes": (*notes, *frames.notes)})
    return ended(store, report, left_out=static.crops)


def _source(
    frames: Frames,
    address: str,
    camera: str,
    detector: Detector,
    start: datetime | None,
    fps: float | None,
    region: Region | None,
) -> Source:
    options = {"camera": camera, "detector": detector.name}
    if region is not None:
        options["region"] = ",".join(map(str, region))
    if frames.live:
        return Source(SOURCE, frames.name, options=options)
    options["start"] = from_us(to_us(start or START)).isoformat()
    if fps is not None:
        options["fps"] = f"{fps:g}"
    path = Path(address)
    return Source(SOURCE, path_text(path), file_digest(path), options)


class _Crops:
    """The crops of one video, as it is read. None between them asks to write those before it."""

    def __init__(
        self,
        frames: Frames,
        source: Source,
        camera: str,
        detector: Detector,
        region: Region | None,
        progress: Progress | None,
    ) -> None:
        self._frames, self._camera, self._region, self._progress = frames, camera, region, progress
        self._tag = source.digest.hex()[:8]
        self._detector, self._tracker = detector, Tracker(detector.sure)
        self._best: dict[int, tuple[int, float, Candidate]] = {}  # by track: half second, its best rating and crop
        self._first: tuple[datetime, timedelta] | None = None  # of the first frame that was looked at
        self.static = StaticFilter()

    def __iter__(self) -> Iterator[Candidate | None]:
        frames = iter(self._frames)
        written = None
        next_look = None
        try:
            for moment, since, frame in frames:
                if self._progress is not None:
                    total = self._frames.total
                    self._progress(self._frames.read, max(total, self._frames.read) if total else 0)
                # A frame that comes a little early is used too; otherwise 30 frames/s would give 7.5 and not 10.
                if next_look is not None and since < next_look - timedelta(seconds=0.25 / LOOKS_PER_S):
                    continue
                next_look = max(since, next_look or since) + timedelta(seconds=1 / LOOKS_PER_S)
                yield from self._look(moment, since, self._part(frame))
                if self._frames.live and since - (written := written or since) >= WRITE_EVERY:
                    written = since
                    yield None
        except KeyboardInterrupt:
            if not self._frames.live:
                raise
        yield from self.static.end((number, crop) for number, (_, _, crop) in self._best.items())

    def _part(self, frame: Frame) -> Frame:
        if self._region is None:
            return frame
        x, y, width, height = self._region
        if min(x, y) < 0 or min(width, height) < 1 or x + width > frame.shape[1] or y + height > frame.shape[0]:
            raise InputError(
                f"the region {x},{y},{width},{height} does not lie within the frame of {frame.shape[1]} x "
                f"{frame.shape[0]} pixels; it is written x,y,width,height"
            )
        return np.ascontiguousarray(frame[y : y + height, x : x + width])

    def _look(self, moment: datetime, since: timedelta, frame: Frame) -> Iterator[Candidate]:
        """Tracks the people of one frame; gives the crops of the half seconds that are over."""
        self._first = self._first or (moment, since)
        first, first_since = self._first
        at_s = (since - first_since).total_seconds()
        shown = self._tracker.step(frame, self._detector.detect([frame])[0], at_s)
        boxes = np.array([track.corner_box() for track in shown]).reshape(-1, 4)
        finished: list[tuple[int, Candidate]] = []
        for track, box, usable in zip(shown, boxes, _usable(boxes, frame), strict=True):
            if not usable:
                continue
            picture, where = self._cut(frame, box)
            good = quality(np.ascontiguousarray(picture[..., ::-1])) * track.confidence
            span = int(at_s / CROP_EVERY_S)
            before = self._best.get(track.number)
            if before is not None and before[0] != span:
                finished.append((track.number, before[2]))
            elif before is not None and before[1] >= good:
                continue
            self._best[track.number] = span, good, self._candidate(moment, since, first, track, picture, where)
        going_on = {track.number for track in self._tracker.tracks}
        for number in [number for number in self._best if number not in going_on]:
            finished.append((number, self._best.pop(number)[2]))
        yield from self.static.step(frame, at_s, shown, going_on, finished)

    def _cut(self, frame: Frame, box: NDArray[np.float64]) -> tuple[Frame, Box]:
        """The picture of a box with a margin, and its place in the whole frame."""
        margin = box[2:] * PADDING
        left, top = np.maximum(np.floor(box[:2] - margin), 0).astype(int).tolist()
        right, bottom = np.minimum(np.ceil(box[:2] + box[2:] + margin), frame.shape[1::-1]).astype(int).tolist()
        x, y = self._region[:2] if self._region else (0, 0)
        return frame[top:bottom, left:right], (x + left, y + top, right - left, bottom - top)

    def _candidate(
        self, moment: datetime, since: timedelta, first: datetime, track: Track, picture: Frame, box: Box
    ) -> Candidate:
        encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        assert encoded, picture.shape
        return Candidate(
            name=f"{moment.isoformat()}, track {track.number}",
            read=data.tobytes,
            camera=self._camera,
            captured_at=moment,
            since=since,
            track=f"{first:%Y%m%dT%H%M%S}-{self._tag}-{track.number}",
            box=box,
        )


def _usable(boxes: NDArray[np.float64], frame: Frame) -> NDArray[np.bool_]:
    """Which of the boxes (n, 4) are large enough, within the frame, and not covered by one nearer to the camera."""
    area = np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)
    whole = np.array([[0, 0, frame.shape[1], frame.shape[0]]], np.float64)
    inside = shared_areas(boxes, whole)[:, 0] / area >= 1 - MOST_CUT_OFF
    lowest = boxes[:, 1] + boxes[:, 3]
    nearer = lowest[None, :] > lowest[:, None]
    covered = (shared_areas(boxes, boxes) * nearer / area[:, None]).max(axis=1, initial=0.0)
    return np.asarray((boxes[:, 3] >= LEAST_HEIGHT_PX) & inside & (covered <= MOST_COVERED))
