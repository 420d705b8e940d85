"""How much of a person a picture shows, and the core's decoder, through which every picture of the city comes in."""

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.decoding import MAX_BYTES, MAX_PIXELS, decode

__all__ = ["MAX_BYTES", "MAX_PIXELS", "decode", "quality"]


def quality(picture: NDArray[np.uint8]) -> float:
    """How much of a person a picture (h, w, 3) RGB can show, 0..1: the geometric mean of three shares.

    - size: its area against 128 x 48 pixels, at most 1;
    - sharpness: v / (v + 1000), where v is the variance of the Laplacian of the gray picture at 128 x 64;
    - exposure: the share of its pixels that are neither almost black (under 8) nor burnt out (over 247).

    A plain surface has 0. It orders pictures of one kind; it is no probability.
    """
    height, width = picture.shape[:2]
    size = min(1.0, height * width / (128 * 48))
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    exposure = float(np.mean((gray >= 8) & (gray <= 247)))
    variance = float(cv2.Laplacian(cv2.resize(gray, (64, 128), interpolation=cv2.INTER_AREA), cv2.CV_64F).var())
    sharpness = variance / (variance + 1000.0)
    return float((size * sharpness * exposure) ** (1 / 3))
