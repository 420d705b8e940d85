"""The picture below the city's plan, which somebody uploaded: HOME/plan.png, and what ground it shows in plan.json."""

import json
from dataclasses import asdict

import cv2
import numpy as np

from pipeline.browsing.plan import Extent
from pipeline.crops.quality import decode
from schemas.disk import write_whole
from schemas.errors import InputError
from schemas.settings import Settings

#: Most pixels of the longer side that are kept.
_LONGEST = 2_400
#: Further away no position of a city lies.
_FURTHEST_M = 1e8


def store_picture(settings: Settings, data: bytes, left: float, bottom: float, width_m: float) -> None:
    """Stores a picture of the ground from `left` on, `width_m` wide. Raises PictureError, InputError."""
    if not 1 <= width_m <= 1_000_000:
        raise InputError("the ground of a plan is between 1 m and 1000 km wide")
    if not max(abs(left), abs(bottom)) <= _FURTHEST_M:
        raise InputError("the ground of a plan begins at most 100,000 km from where positions are 0, 0")
    pixels = decode(data)
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done
    shows = Extent(left, bottom, width_m, width_m * height / width)
    write_whole(settings.home / "plan.png", encoded.tobytes(), mode=0o600)
    write_whole(settings.home / "plan.json", json.dumps(asdict(shows)), mode=0o600)


def read_extent(settings: Settings) -> Extent | None:
    """The ground that the picture shows; None without a picture."""
    try:
        return Extent(**json.loads((settings.home / "plan.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def read_picture(settings: Settings) -> bytes | None:
    """The PNG; None without a picture."""
    try:
        return (settings.home / "plan.png").read_bytes()
    except OSError:
        return None


def remove_picture(settings: Settings) -> None:
    for name in ("plan.json", "plan.png"):
        (settings.home / name).unlink(missing_ok=True)
