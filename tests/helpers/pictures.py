"""Pictures to ingest, and a small city for them."""

import cv2
import numpy as np

UNITS = (
    {"code": "d1"},
    {"code": "d1/s1"},
    {"code": "d1/s1/b1"},
    {"code": "d1/s1/b2"},
    {"code": "d1/s1/b1/c1", "source": "c1"},
    {"code": "d1/s1/b2/c2", "source": "c12"},
)


def picture(seed: int) -> bytes:
    """A JPEG of 32 x 64 pixels of noise; each seed gives another."""
    noise = np.random.default_rng(seed).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    done, data = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2))
    assert done
    return data.tobytes()
