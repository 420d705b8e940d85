"""How much of a person a picture shows, and the core's decoder, which decodes every picture of the city."""

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.decoding import MAX_BYTES, decode

__all__ = ["MAX_BYTES", "decode", "quality"]


def quality(picture: NDArray[np.uint8]) -> float:
    """Quality 0..1 of a picture (h, w, 3) RGB of a person: the geometric mean of three shares.

    - size: its area relative to 128 x 48 pixels, at most 1;
    - sharpness: v / (v + 1000), where v is the variance of the Laplacian of the gray picture at 128 x 64;
    - exposure: the share of pixels that are neither almost black (below 8) nor overexposed (above 247).

    A uniform surface has 0. Quality ranks pictures of one kind; it is no probability.
    """
    height, width = picture.shape[:2]
    size = min(1.0, height * width / (128 * 48))
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    exposure = float(np.mean((gray >= 8) & (gray <= 247)))
    variance = float(cv2.Laplacian(cv2.resize(gray, (64, 128), interpolation=cv2.INTER_AREA), cv2.CV_64F).var())
    sharpness = variance / (variance + 1000.0)
    return float((size * sharpness * exposure) ** (1 / 3))
