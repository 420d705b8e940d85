"""Every pixel format decodes to what a person sees: against pictures written bit by bit here, or by Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reid_core.decoding import decode
from schemas.arrays import Floats, Ints

#: A ramp from black to white, uint8 (16, 32).
RAMP = np.tile(np.linspace(0, 255, 32).round().astype(np.uint8), (16, 1))
#: Red, green, blue and gray quarters on a ramp, uint8 (16, 32, 3).
COLORS = np.stack([RAMP, RAMP[:, ::-1], np.roll(RAMP, 8, axis=1)], axis=2)

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png(values: NDArray[np.integer], depth: int, color_type: int, extra: bytes = b"") -> bytes:
    """A PNG of samples (h, w, channels) in 0..2**depth - 1. `extra`: chunks before the pixels."""
    height, width, _ = values.shape
    rows = []
    for row in values:
        samples = row.reshape(-1)
        if depth == 16:
            packed = samples.astype(">u2").tobytes()
        else:
            bits = np.unpackbits(samples.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
            packed = np.packbits(bits.reshape(-1)).tobytes()
        rows.append(b"\0" + packed)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def scaled(picture: NDArray[np.uint8], depth: int) -> Ints:
    """A picture's values in 0..2**depth - 1."""
    return np.asarray((picture / 255 * (2**depth - 1)).round(), np.int64)


def seen(picture: NDArray[np.uint8], depth: int) -> Floats:
    """What is left of a picture at that depth, in 0..255."""
    return np.asarray(scaled(picture, depth) / (2**depth - 1) * 255, np.float64)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_png_of_every_depth(depth: int) -> None:
    found = decode(png(scaled(RAMP, depth)[:, :, None], depth, GRAY))
    assert np.abs(found - seen(RAMP, depth)[:, :, None]).max() <= 0.5


@pytest.mark.parametrize("depth", [8, 16])
def test_color_png_of_every_depth(depth: int) -> None:
    found = decode(png(scaled(COLORS, depth), depth, RGB))
    assert np.abs(found - seen(COLORS, depth)).max() <= 1  # Pillow keeps the high byte of 16 bits


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_png_of_every_depth(depth: int) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (2**depth, 3), dtype=np.uint8)
    indices = np.random.default_rng(1).integers(0, 2**depth, (16, 32, 1))
    found = decode(png(indices, depth, PALETTE, chunk(b"PLTE", palette.tobytes())))
    assert np.array_equal(found, palette[indices[:, :, 0]])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("color_type", [GRAY_ALPHA, RGBA])
def test_transparent_pixels_lie_on_white(depth: int, color_type: int) -> None:
    picture = RAMP[:, :, None] if color_type == GRAY_ALPHA else COLORS
    alpha = np.zeros_like(RAMP)
    alpha[:8], alpha[8:12] = 255, 128
    found = decode(png(scaled(np.concatenate([picture, alpha[:, :, None]], axis=2), depth), depth, color_type))
    share = alpha[:, :, None] / 255
    assert np.abs(found - (picture * share + 255 * (1 - share))).max() <= 2
    assert (found[12:] == 255).all()


@pytest.mark.parametrize(("depth", "white"), [(8, 255), (16, 65_535)])
def test_a_transparent_color_of_a_gray_png_lies_on_white(depth: int, white: int) -> None:
    """The chunk tRNS of a gray PNG names one value that is transparent: here black."""
    values = np.zeros((16, 32, 1), np.int64)
    values[:, 16:] = white // 2
    found = decode(png(values, depth, GRAY, chunk(b"tRNS", struct.pack(">H", 0))))
    assert (found[:, :16] == 255).all()
    assert np.abs(found[:, 16:] - 127.5).max() <= 1


@pytest.mark.parametrize(
    ("mode", "kind", "options", "tolerance"),
    [
        ("1", "BMP", {}, 0),
        ("L", "BMP", {}, 0),
        ("P", "BMP", {}, 20),
        ("RGB", "BMP", {}, 0),
        ("RGBA", "BMP", {}, 0),
        ("L", "JPEG", {"quality": 100}, 3),
        ("RGB", "JPEG", {"quality": 100, "subsampling": 0}, 3),
        ("CMYK", "JPEG", {"quality": 100}, 3),
        ("RGB", "WEBP", {"lossless": True}, 0),
        ("RGBA", "WEBP", {"lossless": True}, 0),
        ("1", "PNG", {}, 0),
        ("LA", "PNG", {}, 0),
        ("I;16", "PNG", {}, 0),
        ("I;16B", "PNG", {}, 0),
    ],
)
def test_every_mode_that_pillow_writes(mode: str, kind: str, options: dict[str, object], tolerance: float) -> None:
    gray = mode in ("1", "L", "LA", "I;16", "I;16B")
    picture = np.repeat(RAMP[:, :, None], 3, axis=2) if gray else COLORS
    if mode in ("I;16", "I;16B"):
        image = Image.fromarray(RAMP.astype(">u2" if mode == "I;16B" else "<u2") * 257)
    elif mode == "1":
        picture = np.where(picture > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(picture).convert("1", dither=Image.Dither.NONE)
    else:
        image = Image.fromarray(picture).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    found = decode(buffer.getvalue())
    assert found.shape == (16, 32, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - picture).mean() <= tolerance
