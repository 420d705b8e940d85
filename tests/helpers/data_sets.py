"""Data sets in miniature, in the true layouts."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.cards import InputConvention

SMALL = InputConvention(height=32, width=16)


def pixels(number: int) -> NDArray[np.uint8]:
    """A picture of its own for each number, uint8 RGB (40, 20, 3)."""
    return np.random.default_rng(number).integers(0, 256, (40, 20, 3), dtype=np.uint8)


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[:, :, ::-1])


def write_market1501(folder: Path, **names: Iterable[str]) -> Path:
    """One picture for each name of each split."""
    number = 0
    for split, folder_name in (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test")):
        (folder / folder_name).mkdir(parents=True)
        for name in names.get(split, ()):
            write(folder / folder_name / name, pixels(number))
            number += 1
    return folder
