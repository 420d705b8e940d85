"""Pictures to ingest, and a small city for them."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """uint8 RGB (h, w, 3); always the same."""
    return np.random.default_rng(7).integers(0, 255, (height, width, 3), np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    """A picture file, by Pillow's name of its format and what it takes with it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def scan_bomb(scans: int = 100_000) -> bytes:
    """A gray JPEG of 9 million pixels, each of whose scans is 23 bytes long and a pass over all of them: about 8 ms."""
    plain = encoded(np.full((3000, 3000), 128, np.uint8), "JPEG", progressive=True)
    last, end = plain.rindex(b"\xff\xda"), plain.rindex(b"\xff\xd9")
    return plain[:end] + plain[last:end] * scans + plain[end:]
