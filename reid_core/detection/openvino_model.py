"""Detection networks that OpenVINO reads."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_core.detection.detector import Found, PictureInput
from reid_core.detection.files import name_of
from reid_core.serving.extras import openvino_core
from schemas.errors import ModelFileError


class OpenVinoModel:
    """An SSD detector in OpenVINO IR: input 1 x 3 x H x W, BGR, 0..255; output 1 x 1 x n x 7.

    An output row is picture, label (1: person), confidence, left, top, right, bottom, the last four in shares of the
    frame.
    """

    sure = 0.5
    least = 0.2

    def __init__(self, file: Path) -> None:
        try:
            model = openvino_core().compile_model(str(file), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
            shape, result = list(model.input(0).shape), model.output(0).partial_shape
        except RuntimeError as error:
            raise ModelFileError(f"{file}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from None
        if len(shape) != 4 or shape[:2] != [1, 3] or result.rank.get_length() != 4 or result[3] != 7:
            raise ModelFileError(f"{file}: is no SSD detector; its input must be 1x3xHxW and its output 1x1xNx7")
        self._model, self.input = model, PictureInput(shape[2], shape[3])
        self.name = name_of(file, file.with_suffix(".bin"))

    def find(self, pictures: NDArray[np.uint8]) -> list[Found]:
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: NDArray[np.uint8]) -> Found:
        images = picture.transpose(2, 0, 1)[None].astype(np.float32)
        rows = np.asarray(next(iter(self._model(images).values())), np.float64).reshape(-1, 7)
        ended = np.flatnonzero(rows[:, 0] < 0)
        rows = rows[: ended[0]] if len(ended) else rows
        rows = rows[(rows[:, 1] == 1) & (rows[:, 2] >= self.least)]
        return np.asarray(rows[:, [3, 4, 5, 6, 2]])
