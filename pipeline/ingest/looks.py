"""From frames to crops: detector -> tracker -> the best picture of each half second, for files and live cameras alike.

Of the frames at most so many a second are looked at. Each tracked person's best picture of every half second becomes a
crop: cut out with a margin around the box, complete in the frame, and not covered by somebody nearer to the camera.
Static things give no crops. What lies in a mask is black before anything looks at it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.crops.quality import quality
from pipeline.ingest.crop_writer import Box, Candidate
from pipeline.ingest.frames import Frames
from pipeline.ingest.look_state import Seam, packed
from pipeline.ingest.motion import MotionGate
from pipeline.ingest.pace import Pace
from pipeline.ingest.stillness import StaticFilter
from pipeline.ingest.tracking import Track, Tracker, shared_areas
from pipeline.ingest.video_file import VideoFile
from reid_core.detection import Detector, Frame
from schemas.errors import InputError

LOOKS_PER_S = 10.0
CROP_EVERY_S = 0.5
PADDING = 0.05  # of the box's width and height, on each side
LEAST_HEIGHT_PX = 40
MOST_COVERED = 0.35  # share of a box behind another box that reaches lower in the frame
MOST_CUT_OFF = 0.1  # share of a box outside the frame
JPEG_QUALITY = 95
CONTEXT_QUALITY, CONTEXT_PX = 80, 1920  # of a context frame, and its longer side at most
#: Crops are written at least this often, in the time of the frames: what is looked at is then soon in the store.
WRITE_EVERY = timedelta(seconds=5)

#: What goes on in the file that follows.
_STATE = ("_tag", "_tracker", "_gate", "_pace", "_best", "_begun", "_first", "_size", "static")

Region = tuple[int, int, int, int]  # x, y, width, height in the frame, pixels
Polygon = tuple[tuple[float, float], ...]  # corners x, y in shares of the frame's width and height


@dataclass(frozen=True)
class View:
    """How a camera's frames are looked at.

    `region`: the part of the frame that is used. `masks`: areas of the frame that are never looked at. `motion_gate`:
    frames in which nothing has changed are not looked at. `context_frames`: the first crop of a track brings the whole
    frame along, black where it is masked.
    """

    camera: str
    region: Region | None = None
    masks: tuple[Polygon, ...] = ()
    looks_per_s: float = LOOKS_PER_S
    motion_gate: bool = False
    context_frames: bool = False

    def options(self) -> dict[str, str]:
        """What of this decides which crops there are, as options of a batch."""
        found = {"camera": self.camera}
        if self.region is not None:
            found["region"] = ",".join(map(str, self.region))
        if self.masks:
            found["masks"] = "; ".join(" ".join(f"{x:g},{y:g}" for x, y in mask) for mask in self.masks)
        if self.looks_per_s != LOOKS_PER_S:
            found["looks a second"] = f"{self.looks_per_s:g}"
        if self.motion_gate:
            found["motion gate"] = "on"
        return found

    def part(self, frame: Frame) -> Frame:
        """The part (h, w, 3) of a frame that is looked at, black where it is masked. Raises InputError."""
        frame = self.masked(frame)
        if self.region is None:
            return frame
        x, y, width, height = self.region
        if min(x, y) < 0 or min(width, height) < 1 or x + width > frame.shape[1] or y + height > frame.shape[0]:
            raise InputError(
                f"the region {x},{y},{width},{height} does not lie within the frame of {frame.shape[1]} x "
                f"{frame.shape[0]} pixels; it is written x,y,width,height"
            )
        return np.ascontiguousarray(frame[y : y + height, x : x + width])

    def masked(self, frame: Frame) -> Frame:
        """The whole frame (h, w, 3), black where it is masked."""
        if not self.masks:
            return frame
        scale = np.array(frame.shape[1::-1])
        corners = [np.round(np.array(mask) * scale).astype(np.int32) for mask in self.masks]
        return np.asarray(cv2.fillPoly(frame.copy(), corners, (0, 0, 0)), np.uint8)


@dataclass
class Seen:
    """What the looks at a camera have seen so far; read by whoever reports on it."""

    looks: int = 0
    gated: int = 0  # looks left out by the motion gate
    people: int = 0  # tracks in the frame that was looked at last
    lag_s: float | None = None  # of a live camera: from a frame's arrival to the end of its look
    last_at: datetime | None = None  # the time of that frame
    picture: Frame | None = field(default=None, repr=False)  # that frame, as `View.part` gives it


def look_options(view: View, detector: Detector) -> dict[str, str]:
    """What decides which crops there are, beside the frames, as options of a batch."""
    return view.options() | {"detector": detector.name}


class Looks:
    """The crops of one video or camera, as it is read. None between them asks to write those before it.

    `tag` tells the tracks of this ingest from those of others. `progress` gets (frames read, frames in all or 0).

    With a `seam` whose `after` is set, they go on where the looks at the file before ended, as if the two were one
    file; the `tag` is that file's then. The rest of the seam is filled in at the end.
    """

    def __init__(
        self,
        frames: Frames,
        view: View,
        detector: Detector,
        tag: str,
        progress: Callable[[int, int], None] | None = None,
        seen: Seen | None = None,
        seam: Seam | None = None,
    ) -> None:
        self._frames, self._view, self._tag, self._progress = frames, view, tag, progress
        self._detector, self._tracker = detector, Tracker(detector.sure, view.looks_per_s)
        self._gate = MotionGate() if view.motion_gate else None
        self._pace, self._seam = Pace(view.looks_per_s), seam
        self._best: dict[int, tuple[int, float, Candidate]] = {}  # by track: half second, its best rating and crop
        self._begun: list[int] = []  # tracks whose first crop is known, and with it their context frame
        self._whole: Frame | None = None  # the frame that is looked at
        self._context: bytes | None = None  # the same as JPEG, black where it is masked
        self._first: tuple[datetime, timedelta] | None = None  # of the first frame that was looked at
        self._size: tuple[int, ...] | None = None
        self._ahead = timedelta()  # by how much this file's times lie behind the beginning of the first one's
        self._tail: dict[tuple[str | None, datetime], Candidate] = {}
        self.static = StaticFilter()
        self.seen = seen or Seen()
        if seam is not None and seam.after is not None:
            self._go_on(seam.after)

    def __iter__(self) -> Iterator[Candidate | None]:
        for candidate in self._crops():
            if candidate is not None:
                self._tail.pop((candidate.track, candidate.captured_at), None)
            yield candidate
        if self._seam is not None:
            self._seam.replaced = list(self._tail.values())

    def _crops(self) -> Iterator[Candidate | None]:
        written = last = None
        try:
            for moment, since, frame in self._frames:
                if self._progress is not None:
                    total = self._frames.total
                    self._progress(self._frames.read, max(total, self._frames.read) if total else 0)
                since += self._ahead
                if self._seam is not None:
                    self._seam.ends, last = moment + (moment - (last or moment)), moment
                if not (self._frames.live or self._pace.is_due(since)):  # a live camera keeps the pace itself
                    continue
                self._whole, self._context = frame, None
                yield from self._look(moment, since, self._view.part(frame))
                if self._frames.clock is not None:
                    self.seen.lag_s = (self._frames.clock.since() - since).total_seconds()
                if since - (written := written or since) >= WRITE_EVERY:
                    written = since
                    yield None
        except KeyboardInterrupt:
            if not self._frames.live:
                raise
        if self._seam is not None:
            assert isinstance(self._frames, VideoFile)
            begun = self._frames.start - self._ahead  # the first file; times are counted from there
            options = look_options(self._view, self._detector)
            self._seam.left = packed({name: vars(self)[name] for name in _STATE} | {"begun": begun, "options": options})
        yield from self._end_tracks()

    def _go_on(self, after: Mapping[str, Any]) -> None:
        assert isinstance(self._frames, VideoFile)
        self._ahead = self._frames.start - after["begun"]
        vars(self).update({name: after[name] for name in _STATE})
        self.static.begin_count()
        held = [*self.static.held(), *(crop for _, _, crop in self._best.values())]
        self._tail = {(crop.track, crop.captured_at): crop for crop in held}

    def _look(self, moment: datetime, since: timedelta, frame: Frame) -> Iterator[Candidate]:
        """Tracks the people of one frame; gives the crops of the half seconds that are over."""
        self._first = self._first or (moment, since)
        first, first_since = self._first
        at_s = (since - first_since).total_seconds()
        if frame.shape != self._size:  # the camera was set to another size: nothing of before can be compared
            yield from self._end_tracks()
            self._size = frame.shape
        self.seen.last_at, self.seen.picture = moment, frame
        if self._gate is not None and not self._gate.is_open(frame, at_s) and not self._tracker.tracks:
            self.seen.gated, self.seen.people = self.seen.gated + 1, 0
            return
        shown = self._tracker.step(frame, self._detector.detect([frame])[0], at_s)
        self.seen.looks, self.seen.people = self.seen.looks + 1, len(shown)
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
                self._begun = [*self._begun, *({track.number} - set(self._begun))]
            elif before is not None and before[1] >= good:
                continue
            self._best[track.number] = span, good, self._candidate(moment, since, first, track, picture, where)
        going_on = {track.number for track in self._tracker.tracks}
        self._begun = [number for number in self._begun if number in going_on]
        for number in [number for number in self._best if number not in going_on]:
            finished.append((number, self._best.pop(number)[2]))
        yield from self.static.step(frame, at_s, shown, going_on, finished)

    def _end_tracks(self) -> Iterator[Candidate]:
        """Gives the crops of all tracks, which end."""
        best = [(number, crop) for number, (_, _, crop) in self._best.items()]
        self._best.clear()
        self._tracker.tracks.clear()
        yield from self.static.end(best)

    def _cut(self, frame: Frame, box: NDArray[np.float64]) -> tuple[Frame, Box]:
        """The picture of a box with a margin, and its place in the whole frame."""
        margin = box[2:] * PADDING
        left, top = np.maximum(np.floor(box[:2] - margin), 0).astype(int).tolist()
        right, bottom = np.minimum(np.ceil(box[:2] + box[2:] + margin), frame.shape[1::-1]).astype(int).tolist()
        x, y = self._view.region[:2] if self._view.region else (0, 0)
        return frame[top:bottom, left:right], (x + left, y + top, right - left, bottom - top)

    def _candidate(
        self, moment: datetime, since: timedelta, first: datetime, track: Track, picture: Frame, box: Box
    ) -> Candidate:
        data = _jpeg(picture, JPEG_QUALITY)
        return Candidate(
            name=f"{moment.isoformat()}, track {track.number}",
            read=lambda: data,
            camera=self._view.camera,
            captured_at=moment,
            since=since,
            track=f"{first:%Y%m%dT%H%M%S}-{self._tag}-{track.number}",
            box=box,
            context=self._context_frame() if self._view.context_frames and track.number not in self._begun else None,
        )

    def _context_frame(self) -> bytes:
        if self._context is None:
            assert self._whole is not None
            frame = self._view.masked(self._whole)
            scale = min(CONTEXT_PX / max(frame.shape[:2]), 1.0)
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
            self._context = _jpeg(np.asarray(small, np.uint8), CONTEXT_QUALITY)
        return self._context


def _jpeg(picture: Frame, quality: int) -> bytes:
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded, picture.shape
    return data.tobytes()


def _usable(boxes: NDArray[np.float64], frame: Frame) -> NDArray[np.bool_]:
    """Which of the boxes (n, 4) are large enough, within the frame, and not covered by one nearer to the camera."""
    area = np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)
    whole = np.array([[0, 0, frame.shape[1], frame.shape[0]]], np.float64)
    inside = shared_areas(boxes, whole)[:, 0] / area >= 1 - MOST_CUT_OFF
    lowest = boxes[:, 1] + boxes[:, 3]
    nearer = lowest[None, :] > lowest[:, None]
    covered = (shared_areas(boxes, boxes) * nearer / area[:, None]).max(axis=1, initial=0.0)
    return np.asarray((boxes[:, 3] >= LEAST_HEIGHT_PX) & inside & (covered <= MOST_COVERED))
