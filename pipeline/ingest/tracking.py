"""The tracker: joins the boxes of successive frames to tracks, one for each person's passage before one camera.

Boxes are matched to the tracks' predicted boxes in the two steps of ByteTrack (Zhang et al. 2022): the sure boxes
first, then the others to the tracks that are left. Each step is a Hungarian assignment on overlap times squared
similarity of colors. In doubt a track ends and a new one begins: one person in two tracklets can be joined at a higher
level, two people in one tracklet cannot be separated again. docs/decisions/tracker.md has the reasons for a tracker of
our own and its measurements.
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from reid_core.detection import Boxes, Frame

LEAST_OVERLAP = 0.25  # intersection over union of a sure box and a track's prediction
LEAST_OVERLAP_UNSURE = 0.5
LEAST_SIMILARITY = 0.75  # of the colors of a box and a track, 0..1
LEAST_SIMILARITY_AFTER_GAP = 0.85
COLORS_LEARNED = 0.1  # weight of a new box in its track's colors
SEEN_BEFORE_SHOWN = 5  # boxes within half a second; a track of fewer is not taken for a person
LEAST_BEFORE_SHOWN = 3  # boxes, of fewer looks a second
LOST_AFTER_S = 1.0
#: With fewer looks a second people go further between two: less of their boxes overlaps, and colors count for more.
SELDOM_PER_S = 4.0
LEAST_OVERLAP_SELDOM, LEAST_SIMILARITY_SELDOM = 0.1, 0.8

# Half of Lab's range holds nearly all colors; those outside are clipped to it.
_COLOR_LIMITS = np.array([[0, 64, 64], [255, 191, 191]], np.uint8)
_COLOR_RANGE = [0.0, 256.0, 64.0, 192.0, 64.0, 192.0]
_MEASURED_STD = 1 / 20  # of a box's center and size, in heights of the box
_ACCELERATION_STD = 1.0  # heights per second squared


@dataclass
class Track:
    """One person's track: a constant-velocity Kalman filter of center x, y, width, height.

    The four share one covariance, in units of the box's height, because their noise is equal in these units.
    """

    number: int
    box: NDArray[np.float64]  # (4,) center x, y, width, height, pixels
    colors: NDArray[np.float64]  # (512,) see `box_colors`
    seen_s: float  # when it was last matched, on the video's clock
    at_s: float  # the time of `box`
    confidence: float
    needed: int = SEEN_BEFORE_SHOWN  # boxes before it is taken for a person
    hits: int = 1
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))  # pixels per second
    covariance: NDArray[np.float64] = field(default_factory=lambda: np.diag([_MEASURED_STD**2, 1.0]))

    @property
    def shown(self) -> bool:
        return self.hits >= self.needed

    def corner_box(self) -> NDArray[np.float64]:
        """(4,) left, top, width, height."""
        return np.concatenate([self.box[:2] - self.box[2:] / 2, self.box[2:]])

    def predict(self, at_s: float) -> None:
        """Moves box and covariance on to `at_s`."""
        step = at_s - self.at_s
        self.at_s = at_s
        self.box = self.box + step * self.velocity
        self.box[2:] = np.maximum(self.box[2:], 1.0)
        move = np.array([[1.0, step], [0.0, 1.0]])
        push = np.array([step**2 / 2, step]) * _ACCELERATION_STD
        self.covariance = move @ self.covariance @ move.T + np.outer(push, push)

    def update(self, box: NDArray[np.float64], confidence: float, colors: NDArray[np.float64]) -> None:
        """Corrects the prediction by a measured box (4,) of left, top, width, height, with its colors (512,)."""
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + _MEASURED_STD**2)
        residual = np.concatenate([box[:2] + box[2:] / 2, box[2:]]) - self.box
        self.box = self.box + gain[0] * residual
        self.velocity = self.velocity + gain[1] * residual
        self.covariance = self.covariance - np.outer(gain, self.covariance[0])
        self.colors = (1 - COLORS_LEARNED) * self.colors + COLORS_LEARNED * colors
        self.seen_s, self.confidence, self.hits = self.at_s, confidence, self.hits + 1


class Tracker:
    """All tracks of one camera. `sure` is the detector's confidence from which a box may begin a track.

    `looks_per_s`: how often frames come.
    """

    def __init__(self, sure: float, looks_per_s: float = 10.0) -> None:
        self._sure = sure
        self._needed = min(SEEN_BEFORE_SHOWN, max(LEAST_BEFORE_SHOWN, math.ceil(looks_per_s / 2)))
        seldom = looks_per_s < SELDOM_PER_S
        self._least_overlap = LEAST_OVERLAP_SELDOM if seldom else LEAST_OVERLAP
        self._least_similarity = LEAST_SIMILARITY_SELDOM if seldom else LEAST_SIMILARITY
        self._count = 0
        self._before_s = 0.0
        self.tracks: list[Track] = []

    def step(self, frame: Frame, boxes: Boxes, at_s: float) -> list[Track]:
        """Takes the frame (h, w, 3) BGR at `at_s` seconds and its boxes (n, 5); returns the shown tracks seen in it."""
        for track in self.tracks:
            track.predict(at_s)
        colors = box_colors(frame, boxes)
        sure = boxes[:, 4] >= self._sure
        rest, new = self._match(self.tracks, boxes[sure], colors[sure], self._least_overlap)
        self._match(rest, boxes[~sure], colors[~sure], LEAST_OVERLAP_UNSURE)
        self.tracks = [
            track
            for track in self.tracks
            if track.seen_s == at_s or (track.shown and at_s - track.seen_s <= LOST_AFTER_S)
        ]
        for box, own_colors in zip(boxes[sure][new], colors[sure][new], strict=True):
            self._count += 1
            center = np.concatenate([box[:2] + box[2:4] / 2, box[2:4]])
            self.tracks.append(Track(self._count, center, own_colors, at_s, at_s, float(box[4]), self._needed))
        self._before_s = at_s
        return [track for track in self.tracks if track.shown and track.seen_s == at_s]

    def _match(
        self, tracks: list[Track], boxes: Boxes, colors: NDArray[np.float64], least: float
    ) -> tuple[list[Track], list[int]]:
        """Updates the tracks that boxes are assigned to; returns the other tracks and the rows of the other boxes."""
        if not tracks or not len(boxes):
            return tracks, list(range(len(boxes)))
        overlap = overlaps(np.stack([track.corner_box() for track in tracks]), boxes[:, :4])
        similarity = np.stack([track.colors for track in tracks]) @ colors.T
        gap = np.array([[track.seen_s < self._before_s] for track in tracks])
        similar = similarity >= np.where(gap, LEAST_SIMILARITY_AFTER_GAP, self._least_similarity)
        affinity = np.where((overlap >= least) & similar, overlap * similarity**2, 0.0)
        rows, columns = linear_sum_assignment(affinity, maximize=True)
        pairs = [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if affinity[i, j] > 0]
        for i, j in pairs:
            tracks[i].update(boxes[j, :4], float(boxes[j, 4]), colors[j])
        matched = {i for i, _ in pairs}, {j for _, j in pairs}
        others = [track for i, track in enumerate(tracks) if i not in matched[0]]
        return others, [j for j in range(len(boxes)) if j not in matched[1]]


def box_colors(frame: Frame, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colors (n, 512) of the people in boxes (n, >= 4): unit vectors; the dot product of equal colors is 1.

    Each is the square root of two Lab histograms of the middle of the box, one of the upper and one of the lower body,
    so that the dot product is the mean of two Bhattacharyya coefficients. A box outside the frame has zeros.
    """
    found = np.zeros((len(boxes), 2, 256))
    for row, (x, y, width, height) in enumerate(boxes[:, :4]):
        left, right = max(round(x + 0.2 * width), 0), max(round(x + 0.8 * width), 0)
        for part, (start, end) in enumerate(((0.12, 0.5), (0.5, 0.9))):
            area = frame[max(round(y + start * height), 0) : max(round(y + end * height), 0), left:right]
            if area.size:
                lab = np.clip(cv2.cvtColor(np.ascontiguousarray(area), cv2.COLOR_BGR2Lab), *_COLOR_LIMITS)
                counts = cv2.calcHist([lab], [0, 1, 2], None, [4, 8, 8], _COLOR_RANGE)
                found[row, part] = counts.reshape(-1) / area.shape[0] / area.shape[1]
    return np.asarray(np.sqrt(found / 2).reshape(len(boxes), 512))


def shared_areas(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Common area (m, n) in pixels of boxes (m, 4) and (n, 4) of left, top, width, height."""
    start = np.maximum(left[:, None, :2], right[None, :, :2])
    end = np.minimum((left[:, :2] + left[:, 2:4])[:, None], (right[:, :2] + right[:, 2:4])[None])
    return np.asarray(np.prod(np.maximum(end - start, 0.0), axis=2))


def overlaps(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union (m, n) of boxes (m, 4) and (n, 4) of left, top, width, height."""
    shared = shared_areas(left, right)
    areas = left[:, 2] * left[:, 3], right[:, 2] * right[:, 3]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))
