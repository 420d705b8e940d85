"""From an encoded picture to pixels, with everything refused that is no picture of a person."""

import io
import struct
import warnings

import cv2
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


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise PictureError(f"the picture is {width} x {height} pixels; at least {MIN_SIDE_PX} a side are needed")
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise PictureError(f"the picture is {width} x {height} pixels; {_LIMITS}")


def quality(picture: NDArray[np.uint8]) -> float:
    """How much of a person a picture (h, w, 3) RGB can show, 0..1: the geometric mean of three shares.

    - size: its area against 128 x 48 pixels, at most 1;
    - sharpness: v / (v + 1000), where v is the variance of the Laplacian of the grey picture at 128 x 64;
    - exposure: the share of its pixels that are neither almost black (under 8) nor burnt out (over 247).

    A plain surface has 0. It orders pictures of one kind; it is no probability.
    """
    height, width = picture.shape[:2]
    size = min(1.0, height * width / (128 * 48))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    exposure = float(np.mean((grey >= 8) & (grey <= 247)))
    variance = float(cv2.Laplacian(cv2.resize(grey, (64, 128), interpolation=cv2.INTER_AREA), cv2.CV_64F).var())
    sharpness = variance / (variance + 1000.0)
    return float((size * sharpness * exposure) ** (1 / 3))
