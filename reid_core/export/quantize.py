"""Post-training quantization of an OpenVINO model to int8, calibrated on pictures (nncf)."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.datasets import open_dataset
from reid_core.decoding import read_picture
from reid_core.preprocessing import normalized, prepare
from reid_core.serving.extras import load_extra
from schemas.cards import InputConvention
from schemas.errors import InputError

#: Pictures that the ranges of activations are measured on; more changed nothing.
CALIBRATION_PICTURES = 300
#: With fewer, the measured ranges depend on chance.
FEWEST_PICTURES = 32

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ""}  # the city's own crops have none


def quantized(model: Any, pictures: NDArray[np.uint8], convention: InputConvention) -> Any:
    """An int8 copy of `model`, an openvino.Model; prepared pictures (N, H, W, 3) give the ranges of its activations.

    Weights have one scale per channel, activations one per tensor. Raises InputError for too few pictures, CoreError if
    nncf is not installed.
    """
    if len(pictures) < FEWEST_PICTURES:
        raise InputError(
            f"{len(pictures)} pictures to calibrate on; int8 needs {FEWEST_PICTURES} or more, of your own cameras"
        )
    nncf = load_extra("nncf", extra="int8")
    images = [
        normalized(torch.from_numpy(pictures[row : row + 1]), convention).contiguous().numpy()
        for row in _spread(len(pictures))
    ]
    with _quiet():
        return nncf.quantize(model, nncf.Dataset(images), preset=nncf.QuantizationPreset.MIXED, subset_size=len(images))


def calibration_pictures(source: str, convention: InputConvention) -> NDArray[np.uint8]:
    """At most `CALIBRATION_PICTURES` prepared pictures, uint8 RGB (N, H, W, 3), evenly spread over `source`.

    `source`: a folder of pictures, with its subfolders, or a data set, whose training split is used. Raises InputError
    and PictureError.
    """
    if Path(source).is_dir():
        files = sorted(file for file in Path(source).rglob("*") if file.suffix.lower() in _SUFFIXES)
        readers: list[Callable[[], NDArray[np.uint8]]] = [partial(read_picture, file) for file in files]
    else:
        readers = [sample.read for sample in open_dataset(source).train]
    if not readers:
        raise InputError(
            f"{source}: holds no picture to calibrate on; give a folder of crops, or a data set as LAYOUT:DIR"
        )
    return np.stack([prepare(readers[row](), convention) for row in _spread(len(readers))])


def _spread(count: int) -> list[int]:
    """At most `CALIBRATION_PICTURES` of the rows 0 to count - 1, evenly spaced."""
    rows: list[int] = np.linspace(0, count - 1, min(count, CALIBRATION_PICTURES)).astype(int).tolist()
    return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Sends nncf's progress bars to stderr, because stdout is for a command's result."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
