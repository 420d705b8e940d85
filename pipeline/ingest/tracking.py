"""From boxes, frame by frame, to people followed before one camera.

Boxes are matched to each track's predicted box by overlap, sure boxes first and the others to what is left (the two
steps of ByteTrack, Zhang et al. 2022), with Hungarian assignment. A track is broken rather than guessed on: it ends
after a second without a match. docs/decisions/tracker.md says why this is ours.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.ingest.detectors import Boxes

LEAST_OVERLAP = 0.25  # intersection over union, of a sure box with a track's prediction
LEAST_OVERLAP_UNSURE = 0.5
SEEN_BEFORE_SHOWN = 3  # a track of fewer boxes is no person
LOST_AFTER_S = 1.0

_MEASURED_STD = 1 / 20  # of a box's centre and size, in heights of the box
_ACCELERATION_STD = 1.0  # heights per second squared


@dataclass
class Track:
    """One followed person. A constant-velocity Kalman filter of centre x, y, width, height.

    The four share one covariance in units of the box's height, because their noise is the same in these units.
    """

    number: int
    box: NDArray[np.float64]  # (4,) centre x, y, width, height, pixels
    seen_s: float  # when it was last matched, on the video's clock
    at_s: float
    confidence: float
    hits: int = 1
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))  # pixels per second
    covariance: NDArray[np.float64] = field(default_factory=lambda: np.diag([_MEASURED_STD**2, 1.0]))

    @property
    def shown(self) -> bool:
        return self.hits >= SEEN_BEFORE_SHOWN

    def corner_box(self) -> NDArray[np.float64]:
        """(4,) left, top, width, height."""
        return np.concatenate([self.box[:2] - self.box[2:] / 2, self.box[2:]])

    def predict(self, at_s: float) -> None:
        step = at_s - self.at_s
        self.at_s = at_s
        self.box = self.box + step * self.velocity
        self.box[2:] = np.maximum(self.box[2:], 1.0)
        move = np.array([[1.0, step], [0.0, 1.0]])
        push = np.array([step**2 / 2, step]) * _ACCELERATION_STD
        self.covariance = move @ self.covariance @ move.T + np.outer(push, push)

    def update(self, box: NDArray[np.float64], confidence: float) -> None:
        """`box` (4,): left, top, width, height."""
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + _MEASURED_STD**2)
        surprise = np.concatenate([box[:2] + box[2:] / 2, box[2:]]) - self.box
        self.box = self.box + gain[0] * surprise
        self.velocity = self.velocity + gain[1] * surprise
        self.covariance = self.covariance - np.outer(gain, self.covariance[0])
        self.seen_s, self.confidence, self.hits = self.at_s, confidence, self.hits + 1


class Tracker:
    """All tracks of one camera. `sure` is the detector's confidence from which a box may begin a track."""

    def __init__(self, sure: float) -> None:
        self._sure = sure
        self._count = 0
        self.tracks: list[Track] = []

    def step(self, boxes: Boxes, at_s: float) -> list[Track]:
        """Takes one frame's boxes (n, 5) at `at_s` seconds of the video; returns the shown tracks matched in it."""
        for track in self.tracks:
            track.predict(at_s)
        sure = boxes[boxes[:, 4] >= self._sure]
        unsure = boxes[boxes[:, 4] < self._sure]
        rest, left_over = self._match(self.tracks, sure, LEAST_OVERLAP)
        self._match(rest, unsure, LEAST_OVERLAP_UNSURE)
        self.tracks = [
            track
            for track in self.tracks
            if track.seen_s == at_s or (track.shown and at_s - track.seen_s <= LOST_AFTER_S)
        ]
        for box in left_over:
            self._count += 1
            centre = np.concatenate([box[:2] + box[2:4] / 2, box[2:4]])
            self.tracks.append(Track(self._count, centre, at_s, at_s, float(box[4])))
        return [track for track in self.tracks if track.shown and track.seen_s == at_s]

    @staticmethod
    def _match(tracks: list[Track], boxes: Boxes, least: float) -> tuple[list[Track], Boxes]:
        """Updates the tracks that a box belongs to; returns the other tracks and the other boxes."""
        if not tracks or not len(boxes):
            return tracks, boxes
        overlap = overlaps(np.stack([track.corner_box() for track in tracks]), boxes[:, :4])
        rows, columns = linear_sum_assignment(np.where(overlap >= least, overlap, 0.0), maximize=True)
        pairs = [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if overlap[i, j] >= least]
        for i, j in pairs:
            tracks[i].update(boxes[j, :4], float(boxes[j, 4]))
        matched = {i for i, _ in pairs}
        others = np.delete(boxes, [j for _, j in pairs], axis=0)
        return [track for i, track in enumerate(tracks) if i not in matched], others


def shared_areas(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, n) pixels that boxes (m, 4) and (n, 4) of left, top, width, height have in common."""
    start = np.maximum(left[:, None, :2], right[None, :, :2])
    end = np.minimum((left[:, :2] + left[:, 2:4])[:, None], (right[:, :2] + right[:, 2:4])[None])
    return np.asarray(np.prod(np.maximum(end - start, 0.0), axis=2))


def overlaps(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, n) intersection over union of boxes (m, 4) and (n, 4) of left, top, width, height."""
    shared = shared_areas(left, right)
    areas = left[:, 2] * left[:, 3], right[:, 2] * right[:, 3]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9))
