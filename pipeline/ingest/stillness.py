"""Static things: what a detector takes for a person although nothing moves, such as a chair, a poster, a coat.

A track whose box stays in its place is static once no pixel within it has changed for STILL_S, and a person's once
something within it has moved all the time for HOLD_S: a person who stands sways and moves head and arms. Crops are held
back until this is decided. A track whose box moves is a person's from then on.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.ingest.crop_writer import Candidate
from pipeline.ingest.tracking import Track
from reid_core.detection import Frame

STILL_S = 5.0
#: A track that stays in its place and within which something has moved all this time is a person's.
HOLD_S = 20.0
MOVED = 0.3  # a box that moves by this share of its height is no static thing
STILL_SHARE = 0.03  # of a box's pixels may change in this time: noise, a reflection
LAG_S = 1.0  # a frame is compared with one that is at least this much older
BLUR_PX = 1.5
LEAST_CHANGE = 8.0  # gray levels of 255; compression changes still surfaces by less
CHANGE_STDS = 5.0  # in standard deviations of the frame's noise
MARGIN = 0.1  # of a box's width and height, on each side, where it holds background


class ChangeMap:
    """When each pixel of a fixed camera's view last changed.

    A pixel changed when the blurred gray picture differs from that of a second ago by more than LEAST_CHANGE and by
    more than the noise of the frame, which is taken from the quarter of the frame that changes least.

    Limits. A person is still by this measure if no part of them moves by a quarter of a pixel for STILL_S: somebody
    asleep, or very small in the frame. Where the camera shakes or rain falls, nothing is still, so nothing is static.
    """

    def __init__(self) -> None:
        self._begun_s = self._at_s = 0.0
        self._changed_s: NDArray[np.float32] | None = None  # (h, w)
        self._earlier: deque[tuple[float, NDArray[np.float32]]] = deque()  # (h, w) gray, half a LAG_S apart

    def step(self, frame: Frame, at_s: float) -> None:
        """Takes the next frame (h, w, 3) BGR, at `at_s` seconds; all frames have one size."""
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32)
        gray = np.asarray(cv2.GaussianBlur(gray, (0, 0), BLUR_PX), np.float32)
        self._at_s = at_s
        if self._changed_s is None:
            self._begun_s = at_s
            self._changed_s = np.full(gray.shape, at_s, np.float32)
        while len(self._earlier) > 1 and self._earlier[1][0] <= at_s - LAG_S:
            self._earlier.popleft()
        if self._earlier:
            change = np.abs(gray - self._earlier[0][1])
            noise = float(np.quantile(change[::4, ::4], 0.25)) / 0.319  # the quartile of |x| for x of deviation 1
            changed = (change > max(LEAST_CHANGE, CHANGE_STDS * noise)).astype(np.uint8)
            self._changed_s[cv2.erode(changed, np.ones((2, 2), np.uint8)) > 0] = at_s
        if not self._earlier or at_s - self._earlier[-1][0] >= LAG_S / 2:
            self._earlier.append((at_s, gray))

    def is_known(self) -> bool:
        """Whether the view has been seen for long enough to call anything in it still."""
        return self._changed_s is not None and self._at_s - self._begun_s >= STILL_S

    def is_still(self, box: NDArray[np.float64]) -> bool:
        """Whether nothing within a box (4,) of left, top, width, height has moved for STILL_S."""
        if self._changed_s is None or not self.is_known():
            return False
        left, top = np.maximum(box[:2] + MARGIN * box[2:], 0).astype(int).tolist()
        right, bottom = np.maximum(box[:2] + (1 - MARGIN) * box[2:], 0).astype(int).tolist()
        within = self._changed_s[top:bottom, left:right]
        return within.size > 0 and float(np.mean(within > self._at_s - STILL_S)) < STILL_SHARE


class Decision(Enum):
    """What is known of a track: nothing yet, that it is a person, that it is a static thing."""

    OPEN = auto()  # crops are held
    PERSON = auto()
    STATIC = auto()


@dataclass
class Known:
    """What is known of one track."""

    place: NDArray[np.float64]  # (2,) center of its first box, pixels
    height: float  # of its first box, pixels
    since_s: float  # the start of the track, or when it was last still
    box: NDArray[np.float64]  # (4,) its last box: left, top, width, height
    moved: bool = False
    was_static: bool = False
    state: Decision = Decision.OPEN
    held: list[Candidate] = field(default_factory=list)


class StaticFilter:
    """Lets the crops of people pass and keeps back those of static things.

    `tracks` counts the tracks that were static at some time, `crops` the crops that were kept back;
    `first` is the first of them.
    """

    def __init__(self) -> None:
        self.tracks = 0
        self.crops = 0
        self.first: Candidate | None = None
        self._changes = ChangeMap()
        self._seen: dict[int, Known] = {}

    def step(
        self,
        frame: Frame,
        at_s: float,
        shown: Sequence[Track],
        going_on: set[int],
        crops: Iterable[tuple[int, Candidate]],
    ) -> Iterator[Candidate]:
        """Takes one frame (h, w, 3) BGR, its shown tracks, the numbers of all that may go on, and new crops by track.

        Gives the crops, among these and those held back, that turn out to be of people.
        """
        self._changes.step(frame, at_s)
        for track in shown:
            box = track.corner_box()
            seen = self._seen.setdefault(track.number, Known(track.box[:2].copy(), float(box[3]), at_s, box))
            seen.box = box
            seen.moved |= bool(np.abs(track.box[:2] - seen.place).max() > MOVED * seen.height)
        self._hold(crops)
        for number, seen in list(self._seen.items()):
            ended = number not in going_on
            too_short = ended and seen.state is Decision.OPEN and self._changes.is_known()
            if not seen.moved and self._changes.is_still(seen.box):
                self.tracks += not seen.was_static
                seen.was_static = True
                seen.state, seen.since_s = Decision.STATIC, at_s
            elif seen.moved or at_s - seen.since_s >= HOLD_S or too_short:
                seen.state = Decision.PERSON
            if seen.state is not Decision.OPEN:
                yield from self._decided(seen)
                if ended:
                    del self._seen[number]

    def end(self, crops: Iterable[tuple[int, Candidate]]) -> Iterator[Candidate]:
        """Takes the last crops by track; gives those, among these and those held back, that are not static.

        Frames that come after this are another view, of any size.
        """
        self._hold(crops)
        for seen in self._seen.values():
            yield from self._decided(seen)
        self._seen.clear()
        self._changes = ChangeMap()

    def begin_count(self) -> None:
        """Counts from here on, of another file."""
        self.tracks = self.crops = 0
        self.first = None

    def held(self) -> list[Candidate]:
        """The crops that are held back, of which it is not decided yet what they are."""
        return [crop for seen in self._seen.values() for crop in seen.held]

    def _hold(self, crops: Iterable[tuple[int, Candidate]]) -> None:
        for number, crop in crops:
            self._seen[number].held.append(crop)

    def _decided(self, seen: Known) -> Iterator[Candidate]:
        """The held crops of a track, unless it is static; they are held no longer."""
        held, seen.held = seen.held, []
        if seen.state is not Decision.STATIC:
            yield from held
            return
        self.crops += len(held)
        self.first = self.first or next(iter(held), None)
