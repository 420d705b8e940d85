"""What the model looked at when it compared two pictures: found by hiding one part after another.

A part of one picture is painted in the picture's mean color, and the distance to the other one is taken again. What it
grows by is what that part added to their likeness; where it shrinks, that part kept them apart. It shows what the
distance depends on, part by part: not why, not parts that count only together, and not what a person would look at. The
way is Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014), section 4.2, for a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore, compared_features, symmetric_distances

#: Rows and columns of the parts that are hidden.
ROWS, COLUMNS = 8, 4


@dataclass(frozen=True)
class Looked:
    """`left`, `right`: float64 (ROWS, COLUMNS), by how much the distance grows where a part of that picture is hidden.

    distance: of the two as they are.
    """

    distance: float
    left: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def largest(self) -> float:
        """The largest change by any part, either way; 0 where nothing changes the distance."""
        return float(max(np.abs(self.left).max(), np.abs(self.right).max()))


def looked_at(
    core: ReIDCore, left: NDArray[np.uint8], right: NDArray[np.uint8], cameras: tuple[str, str] = ("", "")
) -> Looked:
    """What the core's distance of two pictures of people, uint8 RGB (h, w, 3), rests on. `cameras`: their codes.

    Embeds each picture once as it is and once for each hidden part. Raises as `ReIDCore.embed` and `distances`.
    """
    pictures = [prepare(picture, core.card.input) for picture in (left, right)]
    hidden = [part for picture in pictures for part in _hidden(picture)]
    features = core.embed(np.stack([*pictures, *hidden]))
    parts = ROWS * COLUMNS
    of = [cameras[0], cameras[1], *[cameras[0]] * parts, *[cameras[1]] * parts]
    compared = compared_features(core, features, of)
    a, b, hidden_a, hidden_b = compared[:1], compared[1:2], compared[2 : 2 + parts], compared[2 + parts :]
    distances = symmetric_distances(
        core,
        np.concatenate([a, hidden_a, np.repeat(a, parts, 0)]),
        np.concatenate([np.repeat(b, 1 + parts, 0), hidden_b]),
    )
    changes = distances[1:] - distances[0]
    grid = (ROWS, COLUMNS)
    return Looked(float(distances[0]), changes[:parts].reshape(grid), changes[parts:].reshape(grid))


def _hidden(picture: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
    """The picture, uint8 (H, W, 3), with each part hidden in turn, row by row."""
    height, width = picture.shape[:2]
    color = picture.reshape(-1, 3).mean(0).round().astype(np.uint8)
    found = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            copy = picture.copy()
            rows = slice(row * height // ROWS, (row + 1) * height // ROWS)
            copy[rows, column * width // COLUMNS : (column + 1) * width // COLUMNS] = color
            found.append(copy)
    return found
