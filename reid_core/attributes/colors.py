"""Colors by name: the eleven basic color terms of English (Berlin and Kay, 1969)."""

import cv2
import numpy as np
from numpy.typing import NDArray

#: Typical colors of clothes for each term, sRGB.
TERMS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((15, 15, 15), (40, 40, 45)),
    "gray": ((90, 90, 95), (130, 130, 130), (175, 175, 175)),
    "white": ((225, 225, 225), (255, 255, 255)),
    "red": ((200, 20, 30), (140, 20, 30)),
    "orange": ((240, 125, 30),),
    "yellow": ((240, 215, 50), (200, 175, 40)),
    "green": ((40, 140, 60), (30, 80, 45), (130, 190, 90)),
    "blue": ((30, 60, 170), (25, 35, 85), (100, 150, 215)),
    "purple": ((115, 50, 145), (75, 40, 95)),
    "pink": ((235, 130, 170), (240, 180, 195)),
    "brown": ((105, 65, 40), (150, 105, 70)),
}
#: Sides of the area around a point, in shares of the picture's width.
AREA = 0.1


def color_name(picture: NDArray[np.uint8], x: float, y: float) -> str:
    """The color term of a picture, uint8 RGB (h, w, 3), around the point (x, y) in shares of its width and height.

    The median of the area in CIELAB, and the nearest term by Euclidean distance (CIE76).
    """
    height, width = picture.shape[:2]
    reach = max(1, round(AREA * width / 2))
    column, row = (min(max(round(at * size), 0), size - 1) for at, size in ((x, width), (y, height)))
    area = picture[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    found = np.median(_lab(area.reshape(-1, 3)), axis=0)
    names = [name for name, shades in TERMS.items() for _ in shades]
    shades = _lab(np.array([shade for shades in TERMS.values() for shade in shades], np.uint8))
    return names[int(np.argmin(np.linalg.norm(shades - found, axis=1)))]


def _lab(colors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIELAB (n, 3), L in 0..100, of sRGB colors (n, 3)."""
    return np.asarray(cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0], np.float32)
