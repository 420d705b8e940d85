"""The interface of detectors, and how a frame becomes the picture that a detection network takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import CoreError, UrbanReidError

#: Boxes of people: (n, 5) x, y, width, height in pixels of the frame, and confidence in 0..1.
Boxes = NDArray[np.float64]
Frame = NDArray[np.uint8]  # (h, w, 3) BGR, as OpenCV reads it
#: People in a network's picture: (n, 5) left, top, right, bottom in shares of the picture's size, and confidence.
Found = NDArray[np.float64]


class Detector(Protocol):
    """Finds people. Safe to call from several threads, which then wait for each other.

    `sure`: the confidence from which a box may begin a track; boxes below it only continue one. `name`: equal for
    detectors that find the same people.
    """

    @property
    def sure(self) -> float: ...

    @property
    def name(self) -> str: ...

    def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
        """The people in each frame (h, w, 3) BGR, in a fixed order. Frames may differ in size.

        What is found in a frame does not depend on the other frames.
        """
        ...


@dataclass(frozen=True)
class PictureInput:
    """The picture that a network takes, and how a frame is brought into it.

    stretch: resized to height x width, whatever its aspect. letterbox: resized within height x width, keeping its
    aspect, at the top left; the rest is gray (114). within: only if it is larger, resized within height x width,
    keeping its aspect; the picture has the size that results.
    """

    height: int
    width: int
    fit: Literal["stretch", "letterbox", "within"] = "stretch"

    def picture(self, frame: Frame) -> Frame:
        """The picture of a frame, uint8 BGR."""
        if self.fit == "stretch":
            return _resized(frame, self.width, self.height)
        height, width = self._size_of(frame)
        small = _resized(frame, width, height)
        if self.fit == "within":
            return small
        picture = np.full((self.height, self.width, 3), 114, np.uint8)
        picture[:height, :width] = small
        return picture

    def boxes(self, found: Found, frame: Frame) -> Boxes:
        """What was found in a frame's picture, in pixels of the frame, and in order."""
        scale = np.array([frame.shape[1], frame.shape[0]], np.float64)
        if self.fit == "letterbox":  # the frame is a part of its picture
            height, width = self._size_of(frame)
            scale *= [self.width / width, self.height / height]
        return from_corners(found[:, :4] * np.tile(scale, 2), found[:, 4])

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a picture of this shape, (h, w, 3), is one that the network takes."""
        if self.fit == "within":
            return len(shape) == 3 and 0 < shape[0] <= self.height and 0 < shape[1] <= self.width and shape[2] == 3
        return shape == (self.height, self.width, 3)

    def _size_of(self, frame: Frame) -> tuple[int, int]:
        """Height and width of a frame that keeps its aspect."""
        ratio = min(self.height / frame.shape[0], self.width / frame.shape[1])
        if self.fit == "within":
            ratio = min(ratio, 1.0)
        return max(1, int(frame.shape[0] * ratio)), max(1, int(frame.shape[1] * ratio))


class DetectionModel(Protocol):
    """A detection network, in this process or in the core process. `sure` and `name` as those of `Detector`."""

    input: PictureInput
    sure: float
    name: str

    def find(self, pictures: NDArray[np.uint8]) -> list[Found]:
        """The people in each of the pictures, uint8 BGR (n, h, w, 3), which do not depend on each other."""
        ...


def find_people(model: DetectionModel, pictures: NDArray[np.uint8]) -> list[Found]:
    """What a network finds in its pictures. Raises CoreError for pictures of another size, and where it fails."""
    if pictures.ndim != 4 or not model.input.takes(pictures.shape[1:]):
        size = f"{model.input.height}, {model.input.width}"
        raise CoreError(
            f"pictures of {pictures.dtype} {pictures.shape}; detector {model.name} takes uint8 (n, {size}, 3)"
        )
    try:
        return model.find(pictures)
    except UrbanReidError:
        raise
    except Exception as error:  # an engine's errors have no narrower base
        reason = " ".join(str(error).split())[:300]
        raise CoreError(f"detector {model.name} failed on {len(pictures)} pictures: {reason}") from error


class ModelDetector:
    """A `Detector` by a network: frames are made its pictures here, so that only pictures go to another process."""

    def __init__(self, model: DetectionModel) -> None:
        self._model = model
        self.sure, self.name = model.sure, model.name

    def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
        pictures = [self._model.input.picture(frame) for frame in frames]
        found: list[Found] = [np.empty((0, 5))] * len(frames)
        for shape in dict.fromkeys(picture.shape for picture in pictures):  # one, unless it fits them `within`
            rows = [row for row, picture in enumerate(pictures) if picture.shape == shape]
            people = find_people(self._model, np.stack([pictures[row] for row in rows]))
            for row, those in zip(rows, people, strict=True):
                found[row] = those
        return [self._model.input.boxes(those, frame) for those, frame in zip(found, frames, strict=True)]


def from_corners(corners: NDArray[np.float64], confidence: NDArray[np.float64]) -> Boxes:
    """Boxes from corners (n, 4) of left, top, right, bottom in pixels, and confidence (n,)."""
    boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2], confidence])
    return in_order(boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:4] > 0).all(axis=1)])


def in_order(boxes: Boxes) -> Boxes:
    """The most confident first, then by place, so that the order does not depend on threads."""
    return boxes[np.lexsort((boxes[:, 1], boxes[:, 0], -boxes[:, 4]))]


def _resized(frame: Frame, width: int, height: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(cv2.resize(frame, (width, height)), np.uint8)
