"""The picture below the city's plan, which somebody uploaded: HOME/plan/picture.png, and its ground in extent.json."""

import json
from dataclasses import asdict

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.browsing.plan import Extent
from pipeline.crops.quality import as_png
from schemas.disk import make_folders, write_whole
from schemas.errors import InputError
from schemas.settings import Settings

#: The folder of the data directory, which backups hold, and its files.
FOLDER, _PICTURE, _EXTENT = "plan", "picture.png", "extent.json"
#: Most pixels of the longer side that are kept.
_LONGEST = 2_400
#: Further away no position of a city lies.
_FURTHEST_M = 1e8


def store_picture(settings: Settings, pixels: NDArray[np.uint8], left: float, bottom: float, width_m: float) -> None:
    """Stores a picture, uint8 RGB (h, w, 3), of the ground from `left` on, `width_m` wide. Raises InputError."""
    if not 1 <= width_m <= 1_000_000:
        raise InputError("the ground of a plan is between 1 m and 1000 km wide")
    if not max(abs(left), abs(bottom)) <= _FURTHEST_M:
        raise InputError("the ground of a plan begins at most 100,000 km from where positions are 0, 0")
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    shows = Extent(left, bottom, width_m, width_m * height / width)
    make_folders(settings.home / FOLDER)
    write_whole(settings.home / FOLDER / _PICTURE, as_png(pixels), mode=0o600)
    write_whole(settings.home / FOLDER / _EXTENT, json.dumps(asdict(shows)), mode=0o600)


def read_extent(settings: Settings) -> Extent | None:
    """The ground that the picture shows; None without a picture."""
    try:
        return Extent(**json.loads((settings.home / FOLDER / _EXTENT).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def read_picture(settings: Settings) -> bytes | None:
    """The PNG; None without a picture."""
    try:
        return (settings.home / FOLDER / _PICTURE).read_bytes()
    except OSError:
        return None


def remove_picture(settings: Settings) -> None:
    for name in (_EXTENT, _PICTURE):
        (settings.home / FOLDER / name).unlink(missing_ok=True)
