"""Decodes pictures: one decoder for data sets and the city, so that both get the same pixels."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import PictureError
from schemas.settings import settings

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MIN_SIDE_PX = 8
MAX_SIDE_PX = 20_000
MAX_BYTES = 64_000_000

#: Modes of a 16-bit gray PNG, which Pillow's own conversion clips to white.
_GRAY_16 = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))

# Pillow checks the size in the header first, with a limit of its own; then `decode` does; then pixels are decoded.
warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged EXIF data


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture as uint8 RGB (h, w, 3), turned upright as its EXIF data say.

    Every pixel format comes out as a person sees it: 16-bit values are scaled to 0..255, and what is transparent lies
    on white. The size is read from the header before pixels are decoded.

    Raises PictureError if the file is empty, over 64 MB, truncated or no JPEG, PNG, WebP or BMP, or if the picture is
    under 8 px or over 20,000 px a side, or has more pixels than the setting max_crop_pixels.
    """
    if not data:
        raise PictureError("the file is empty")
    if len(data) > MAX_BYTES:
        raise PictureError(f"the file is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            pixels = _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PictureError("is no JPEG, PNG, WebP or BMP picture") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PictureError(f"the picture is too large: {_limits()}") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise PictureError(f"the picture is damaged: {str(error)[:120]}") from None
    return pixels


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decodes a picture file with `decode`. Raises PictureError with the file's name."""
    try:
        return decode(read_bytes(path))
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from None
    except PictureError as error:
        raise PictureError(f"{path}: {error}; get it again, or take it out of the data set") from None


def read_bytes(path: Path) -> bytes:
    """The file's first MAX_BYTES + 1 bytes, which are enough for `decode`. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an opened picture as uint8 RGB (h, w, 3)."""
    if image.mode in _GRAY_16:
        values = np.asarray(image).astype(np.uint32)  # 0..65,535
        gray = ((values + 128) // 257).astype(np.uint8)  # 65,535 = 255 * 257
        gray[values == image.info.get("transparency")] = 255
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return np.asarray(image.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise PictureError(f"the picture is {width} x {height} pixels; at least {MIN_SIDE_PX} a side are needed")
    if max(width, height) > MAX_SIDE_PX or width * height > settings().max_crop_pixels:
        raise PictureError(f"the picture is {width} x {height} pixels; {_limits()}")


def _limits() -> str:
    return (
        f"at most {MAX_SIDE_PX:,} pixels a side and {settings().max_crop_pixels:,} in all are taken; "
        "URBAN_REID_MAX_CROP_PIXELS allows more"
    )
