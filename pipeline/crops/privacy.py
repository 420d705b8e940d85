"""Faces made unrecognizable where pictures of several people are shown.

No detector of faces is in the catalog, so the part of a crop where a head can be is replaced by a few large cells of
its mean colors, from which nothing can be brought back. A context frame, in which anybody may stand anywhere, is
replaced as a whole.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

#: The upper share of a crop that holds the head: all of it up to 0.33 in rendered crops whose boxes are as inexact as
#: a poor detector's (`python -m benchmarks.head_region`), and more where legs are hidden or cut off.
HEAD_SHARE = 0.4
_CELLS = 4  # to a crop's width, of which a face takes a third
_FRAME_CELLS = 40  # to a frame's height


def shows_people(connection: Connection) -> bool:
    """Whether the city's pictures show people; False where they are rendered."""
    return bool(connection.scalar(text("SELECT kind FROM city")) != "synthetic")


def without_face(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture of a person, uint8 RGB (h, w, 3), with its head's part in cells."""
    height, width = crop.shape[:2]
    end = max(1, round(height * HEAD_SHARE))
    found = crop.copy()
    found[:end] = _in_cells(crop[:end], max(1, round(width / _CELLS)))
    return found


def without_faces(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A whole frame, uint8 RGB or BGR (h, w, 3), in cells."""
    return _in_cells(frame, max(1, round(frame.shape[0] / _FRAME_CELLS)))


def _in_cells(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    cells = (max(1, round(width / side)), max(1, round(height / side)))
    small = cv2.resize(picture, cells, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
