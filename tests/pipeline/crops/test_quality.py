import io
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.crops.quality import decode, quality
from schemas.errors import PictureError


def person(height: int = 128, width: int = 64) -> NDArray[np.uint8]:
    noise = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), dtype=np.uint8)


def encoded(picture: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size and holds almost no data."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"0"))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.jpg", encoded(person(), "JPEG"))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    picture = person()
    assert np.array_equal(decode(encoded(picture, kind)), picture)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_keep_shape_and_colors(kind: str) -> None:
    picture = person()
    picture[..., 0] = 200  # red stays the first channel
    found = decode(encoded(picture, kind, quality=95))
    assert found.shape == (128, 64, 3) and found.dtype == np.uint8
    assert abs(float(found[..., 0].mean()) - 200) < 4


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    assert decode(encoded(person(), "JPEG", exif=exif)).shape == (64, 128, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_color_models_come_out_as_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(person()).convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode(buffer.getvalue()).shape == (128, 64, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff", "no JPEG"),
        (encoded(person(), "JPEG")[:-200], "damaged"),
        (encoded(person(), "PNG")[:-200], "damaged"),
        (archive(), "no JPEG"),
        (encoded(person(), "GIF"), "no JPEG"),
        (encoded(person(1, 1), "PNG"), "1 x 1 pixels; at least 8"),
        (encoded(person(7, 64), "PNG"), "64 x 7"),
        (png_header(50_000, 50_000), "too large: at most 20,000 pixels a side"),
        (png_header(10_000, 10_000), "too large: at most 20,000 pixels a side"),
        (png_header(20_001, 100), "20001 x 100"),
        (png_header(8_100, 8_000), "8100 x 8000"),
    ],
)
def test_unusable_pictures_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        decode(data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_are_refused_or_decoded_but_nothing_else() -> None:
    rng = np.random.default_rng(5)
    exif = Image.Exif()
    exif[274] = 6
    for data in (encoded(person(), "JPEG", exif=exif), encoded(person(), "PNG"), encoded(person(), "WEBP")):
        for _ in range(200):
            broken = bytearray(data)
            broken[int(rng.integers(min(len(data), 200)))] = int(rng.integers(256))
            try:
                assert decode(bytes(broken)).ndim == 3
            except PictureError as error:
                assert "\n" not in str(error)


def test_quality_falls_with_blur_darkness_and_size() -> None:
    noise = np.random.default_rng(3).integers(0, 255, (128, 64, 3), dtype=np.uint8)
    good = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1), dtype=np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(good, (0, 0), 4), dtype=np.uint8)
    dark = (good // 20).astype(np.uint8)
    small = np.asarray(cv2.resize(good, (12, 24), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    assert 0.5 < quality(good) <= 1
    for worse in (blurred, dark, small):
        assert 0 <= quality(worse) < quality(good) - 0.1
    assert quality(np.full((128, 64, 3), 128, np.uint8)) == 0
    assert quality(np.zeros((128, 64, 3), np.uint8)) == 0
