"""The layouts of detection networks' outputs: how people are read from them, and which picture each network takes.

A layout is told by the shapes of the outputs, because the files state no more:

| layout  | outputs                                                  | networks                             |
|---------|----------------------------------------------------------|--------------------------------------|
| ssd     | 1 x 1 x n x 7                                            | Open Model Zoo's 0013, 0200 to 0202  |
| boxes   | n x 5, and labels n                                      | Open Model Zoo's 0203, 0303          |
| nanodet | for each stride 1 x cells x 80 and 1 x cells x 4 (r + 1) | NanoDet                              |
|         | or all strides in one, 1 x cells x (80 + 4 (r + 1))      |                                      |
| yolox   | 1 x cells x 85                                           | YOLOX                                |

NanoDet and YOLOX name their 80 classes as COCO does, and 0 is a person. `cells`: of the grids of all strides, or of
one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.detection.detector import Found, PictureInput

Array = NDArray[np.floating]
#: The outputs of one picture, in the file's order, to its people.
Decode = Callable[[Sequence[Array]], Found]

CLASSES = 80
STRIDES = (8, 16, 32, 64)
#: Boxes of one person overlap by more than this share of their union; the most confident one stays.
OVERLAP = 0.5
#: A picture that is larger than its network's input keeps its aspect in NanoDet and YOLOX, as in their training.
LETTERBOX: Literal["letterbox"] = "letterbox"


@dataclass(frozen=True)
class Layout:
    """`mean` and `std`: of the picture's BGR channels, 0..255. `sure`: as `Detector.sure`."""

    name: str
    input: PictureInput
    sure: float
    decode: Decode
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


#: People of less confidence are left out.
LEAST = 0.2


def layout_of(height: int, width: int, outputs: Sequence[Sequence[int]], person: int = 1) -> Layout | None:
    """The layout of a network with a picture of height x width and outputs of these shapes; None if it is not known.

    A size that a file leaves open is -1. `person`: the label of people in the output of an SSD.
    """
    shapes = [tuple(shape) for shape in outputs]
    if len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] == 7:
        return Layout("ssd", PictureInput(height, width), 0.5, partial(_ssd, person))
    if sorted(map(len, shapes)) == [1, 2] and max(shapes, key=len)[1] == 5:
        return Layout("boxes", PictureInput(height, width), 0.5, partial(_boxes, height, width))
    cells = [(-(-height // stride)) * (-(-width // stride)) for stride in STRIDES]
    if shapes == [(1, sum(cells[:3]), 5 + CLASSES)]:
        return Layout("yolox", PictureInput(height, width, LETTERBOX), 0.5, partial(_yolox, height, width))
    for count in (3, 4):
        rows = sorted(shape[1] for shape in shapes if len(shape) == 3 and shape[0] == 1)
        widths = {shape[-1] for shape in shapes}
        together = rows == [sum(cells[:count])] and _sides(widths, CLASSES)
        apart = len(shapes) == 2 * count and rows == sorted(2 * cells[:count]) and CLASSES in widths
        if together or (apart and _sides(widths - {CLASSES}, 0)):
            decode = partial(_nanodet, height, width, STRIDES[:count])
            mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
            return Layout("nanodet", PictureInput(height, width, LETTERBOX), 0.4, decode, mean, std)
    return None


def _sides(widths: set[int], more: int) -> bool:
    """Whether all of NanoDet's outputs have one width: four distributions over 2 to 19 bins, and `more` values."""
    return len(widths) == 1 and max(widths) - more in range(8, CLASSES, 4)


def _ssd(person: int, outputs: Sequence[Array]) -> Found:
    """A row is picture (negative: no more rows), label, confidence, and the corners in shares of the picture."""
    rows = np.asarray(outputs[0], np.float64).reshape(-1, 7)
    ended = np.flatnonzero(rows[:, 0] < 0)
    rows = rows[: ended[0]] if len(ended) else rows
    rows = rows[(rows[:, 1] == person) & (rows[:, 2] >= LEAST)]
    return np.asarray(rows[:, [3, 4, 5, 6, 2]])


def _boxes(height: int, width: int, outputs: Sequence[Array]) -> Found:
    """A row is the corners in pixels of the picture, and the confidence; rows without a person have none."""
    rows = np.asarray(next(output for output in outputs if output.ndim == 2), np.float64)
    return np.asarray(rows[rows[:, 4] >= LEAST] / [width, height, width, height, 1])


def _yolox(height: int, width: int, outputs: Sequence[Array]) -> Found:
    """A row is center and logarithm of the size in cells, objectness, and the classes (Ge et al. 2021, YOLOX, 2.1)."""
    rows = np.asarray(outputs[0], np.float64)[0]
    confidence = rows[:, 4] * rows[:, 5]
    grids = [_grid(height, width, stride) for stride in STRIDES[:3]]
    corner = np.concatenate(grids)
    stride = np.repeat(STRIDES[:3], [len(grid) for grid in grids])
    likely = confidence >= LEAST
    center = (rows[likely, :2] + corner[likely]) * stride[likely, None]
    half = np.exp(np.minimum(rows[likely, 2:4], 20.0)) * stride[likely, None] / 2
    return _without_doubles(np.hstack([center - half, center + half]), confidence[likely], height, width)


def _nanodet(height: int, width: int, strides: Sequence[int], outputs: Sequence[Array]) -> Found:
    """The distance of each side from the cell's center is the mean of a distribution over 0..r cells.

    Generalized focal loss (Li et al. 2020, 3.2), as NanoDet uses it.
    """
    grids = [_grid(height, width, stride) for stride in strides]
    if len(outputs) == 1:  # all strides in one
        parts = np.split(outputs[0][0], np.cumsum([len(grid) for grid in grids])[:-1])
        outputs = [part[None, :, columns] for part in parts for columns in (slice(CLASSES), slice(CLASSES, None))]
    corners, confidences = [], []
    for stride, grid in zip(strides, grids, strict=True):
        classes = next(found[0] for found in outputs if found.shape[1:] == (len(grid), CLASSES))
        sides = next(found[0] for found in outputs if found.shape[1] == len(grid) and found.shape[2] != CLASSES)
        likely = classes[:, 0] >= LEAST
        logits = np.asarray(sides[likely], np.float64).reshape(-1, 4, sides.shape[1] // 4)
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        distance = (weights * np.arange(logits.shape[2])).sum(axis=2) / weights.sum(axis=2) * stride
        center = (grid[likely] + 0.5) * stride
        corners.append(np.hstack([center - distance[:, :2], center + distance[:, 2:]]))
        confidences.append(np.asarray(classes[likely, 0], np.float64))
    return _without_doubles(np.concatenate(corners), np.concatenate(confidences), height, width)


def _grid(height: int, width: int, stride: int) -> Array:
    """The cells of a stride, row by row: (n, 2) their column and row."""
    rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)


def _without_doubles(corners: Array, confidence: Array, height: int, width: int) -> Found:
    """Of boxes that overlap the most confident one (non-maximum suppression), in shares of the picture."""
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    usable = np.isfinite(boxes).all(axis=1) & np.isfinite(confidence)
    boxes, corners, confidence = boxes[usable], corners[usable], confidence[usable]
    kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), confidence.tolist(), 0.0, OVERLAP), np.int64).ravel()
    return np.column_stack([corners[kept] / [width, height, width, height], confidence[kept]])
