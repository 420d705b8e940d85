"""From an encoded picture to pixels: one decoder for data sets and the city, so that both see the same picture."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from schemas.errors import PictureError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MIN_SIDE_PX = 8
MAX_SIDE_PX = 20_000
MAX_PIXELS = 64_000_000
MAX_BYTES = 64_000_000
_LIMITS = f"at most {MAX_SIDE_PX:,} pixels a side and {MAX_PIXELS // 1_000_000} megapixels are taken"

# Pillow looks at the header's size first, with a guard of its own, then we do, and only then pixels are decoded.
warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged EXIF data


def decode(data: bytes) -> NDArray[np.uint8]:
    """The picture as (h, w, 3) RGB, turned upright. Its size is read from the header before anything is decoded.

    Raises PictureError for what is empty, truncated, no JPEG, PNG, WebP or BMP, under 8 px or over 20,000 px a side,
    or over 64 megapixels.
    """
    if not data:
        raise PictureError("the file is empty")
    if len(data) > MAX_BYTES:
        raise PictureError(f"the file is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            upright = ImageOps.exif_transpose(image)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            pixels = np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:
        raise PictureError("is no JPEG, PNG, WebP or BMP picture") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PictureError(f"the picture is too large: {_LIMITS}") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise PictureError(f"the picture is damaged: {str(error)[:120]}") from None
    return pixels


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as `decode` gives it. Raises PictureError naming the file."""
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from None
    except PictureError as error:
        raise PictureError(f"{path}: {error}; get it again, or take it out of the data set") from None


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise PictureError(f"the picture is {width} x {height} pixels; at least {MIN_SIDE_PX} a side are needed")
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise PictureError(f"the picture is {width} x {height} pixels; {_LIMITS}")
