"""From a decoded picture to a model's input, in the same way for training, evaluation and the city."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.cards import InputConvention

if TYPE_CHECKING:
    from torch import Tensor


def prepare(picture: NDArray[np.uint8], convention: InputConvention) -> NDArray[np.uint8]:
    """`picture`, uint8 RGB (h, w, 3), resized to the model's height and width: uint8 RGB (H, W, 3).

    Averages over areas where both sides shrink, which avoids aliasing; else interpolates linearly.
    """
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3, (picture.dtype, picture.shape)
    height, width = picture.shape[:2]
    shrinks = height >= convention.height and width >= convention.width
    size = (convention.width, convention.height)
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def normalized(pictures: "Tensor", convention: InputConvention) -> "Tensor":
    """A model's input, float32 (N, 3, H, W), from prepared pictures, uint8 RGB (N, H, W, 3), on their device.

    The only place that orders and scales colors and applies mean and std, which are in the model's order of colors.
    """
    values = pictures.permute(0, 3, 1, 2).float()
    if convention.color == "bgr":
        values = values.flip(1)
    if convention.range == 1:
        values = values / 255
    mean = values.new_tensor(convention.mean)[:, None, None]
    std = values.new_tensor(convention.std)[:, None, None]
    return (values - mean) / std
