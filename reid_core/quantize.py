"""Post-training quantisation to int8 of an OpenVINO model, calibrated on pictures (nncf)."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.engines import load_engine
from reid_core.pictures import normalized
from schemas.cards import InputConvention
from schemas.errors import InputError

#: Pictures that activations are watched on; more changed nothing.
CALIBRATION_PICTURES = 300
#: With fewer the ranges of activations are chance.
FEWEST_PICTURES = 32


def quantized(model: Any, pictures: NDArray[np.uint8], convention: InputConvention) -> Any:
    """An int8 copy of `model`, an openvino.Model, its activations' ranges taken from prepared pictures (N, H, W, 3).

    Weights are symmetric a channel, activations asymmetric where they have both signs. Raises InputError for too few
    pictures, and CoreError without nncf.
    """
    if len(pictures) < FEWEST_PICTURES:
        raise InputError(
            f"{len(pictures)} pictures to calibrate on; int8 needs {FEWEST_PICTURES} or more of your cameras'"
        )
    nncf = load_engine("nncf", extra="int8")
    rows = np.linspace(0, len(pictures) - 1, min(len(pictures), CALIBRATION_PICTURES)).astype(int)
    images = [normalized(torch.from_numpy(pictures[row : row + 1]), convention).contiguous().numpy() for row in rows]
    with _quiet():
        return nncf.quantize(model, nncf.Dataset(images), preset=nncf.QuantizationPreset.MIXED, subset_size=len(images))


@contextmanager
def _quiet() -> Iterator[None]:
    """nncf draws its bars on stdout, which is for what a command answers."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
