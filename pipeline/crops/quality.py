"""How much of a person a picture shows; the decoder of every picture of the city, which is the core's; and PNG."""

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.decoding import MAX_BYTES, decode

__all__ = ["MAX_BYTES", "as_png", "decode", "quality"]


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 RGB (h, w, 3), as PNG, which `decode` turns into the same pixels."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    return encoded.tobytes()


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
