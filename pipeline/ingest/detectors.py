"""Detectors: boxes of people in a frame. HOG needs nothing but OpenCV, the others a model file.

- HOG and a linear SVM, OpenCV's default people detector (Dalal and Triggs, 2005); upright people of 100 px and more.
- An OpenVINO IR file with one picture as input and SSD's detections as output, such as Open Model Zoo's
  person-detection-retail-0013.
- A torchvision detector by its published weights file, such as `ssdlite320_mobilenet_v3_large_coco-a79551df.pth`.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.serving.extras import openvino_core
from schemas.errors import ModelFileError, UsageError

#: Boxes of people: (n, 5) x, y, width, height in pixels of the frame, and confidence in 0..1.
Boxes = NDArray[np.float64]
Frame = NDArray[np.uint8]  # (h, w, 3) BGR, as OpenCV reads it


class Detector(Protocol):
    """Finds people.

    `sure`: the confidence from which a box may begin a track; boxes below it only continue one. `name`: equal for
    detectors that find the same people.
    """

    sure: float

    @property
    def name(self) -> str: ...

    def detect(self, frame: Frame) -> Boxes:
        """The people in a frame (h, w, 3) BGR, in a fixed order."""


def open_detector(file: Path | None = None) -> Detector:
    """The detector of a model file: `.xml` for OpenVINO, `.pth` for torchvision; HOG without a file.

    Raises UsageError for another kind of file, ModelFileError for one that cannot be read or trusted.
    """
    if file is None:
        return HogDetector()
    if not file.is_file():
        raise ModelFileError(f"{file}: no such file")
    if file.suffix == ".xml":
        return OpenVinoDetector(file)
    if file.suffix == ".pth":
        return TorchvisionDetector(file)
    raise UsageError(f"{file}: is no detector; give an OpenVINO .xml or a torchvision .pth file")


class HogDetector:
    """OpenCV's default people detector. Its confidence is m / (m + 1) of the margin m of the SVM."""

    sure = 0.35
    name = "HOG"

    def __init__(self) -> None:
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())  # type: ignore[attr-defined]

    def detect(self, frame: Frame) -> Boxes:
        if frame.shape[0] < 128 or frame.shape[1] < 64:  # the detector's window
            return np.empty((0, 5))
        with _one_thread():
            found, margins = self._hog.detectMultiScale(frame, winStride=(8, 8), scale=1.05)
        if not len(found):
            return np.empty((0, 5))
        boxes = np.asarray(found, np.float64)
        # It was trained on people with a margin around them, so its boxes are larger than the person by that margin.
        boxes = boxes * [1, 1, 0.7, 0.8] + boxes[:, [2, 3, 2, 3]] * [0.15, 0.08, 0, 0]
        margin = np.maximum(np.asarray(margins, np.float64).reshape(-1), 0)
        return _in_order(np.column_stack([boxes, margin / (margin + 1)]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs OpenCV in one thread.

    In several, HOG's detectMultiScale appends the boxes of a scale under one lock and their margins under another, so
    that now and then boxes get the margins of another scale, and the same frame has other confidences.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


class OpenVinoDetector:
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
        self._model, self._size = model, (shape[3], shape[2])
        self.name = _name(file, file.with_suffix(".bin"))

    def detect(self, frame: Frame) -> Boxes:
        picture = cv2.resize(frame, self._size).transpose(2, 0, 1)[None].astype(np.float32)
        rows = np.asarray(next(iter(self._model(picture).values())), np.float64).reshape(-1, 7)
        ended = np.flatnonzero(rows[:, 0] < 0)
        rows = rows[: ended[0]] if len(ended) else rows
        rows = rows[(rows[:, 1] == 1) & (rows[:, 2] >= self.least)]
        return _from_corners(rows[:, 3:7] * np.tile(frame.shape[1::-1], 2), rows[:, 2])


class TorchvisionDetector:
    """A torchvision detector, trained on COCO, where label 1 is a person. Runs on the CPU.

    The file is a pickle, so it is read with weights_only=True, and only if its SHA-256 begins with the eight digits at
    the end of its name, as torchvision publishes it.
    """

    sure = 0.6
    least = 0.2

    def __init__(self, file: Path) -> None:
        import torch
        from torchvision.models import detection, get_model, list_models

        name = re.fullmatch(r"([a-z0-9_]+)_coco-([0-9a-f]{8})", file.stem)
        models = [model for model in list_models(module=detection) if not model.startswith("keypoint")]
        if name is None or name[1] not in models:
            raise ModelFileError(
                f"{file}: name it as torchvision does, MODEL_coco-HASH.pth; MODEL is one of {', '.join(models)}"
            )
        if hashlib.sha256(file.read_bytes()).hexdigest()[:8] != name[2]:
            raise ModelFileError(f"{file}: its SHA-256 does not begin with {name[2]}; download it again")
        self._torch, self.name = torch, _name(file)
        self._model = get_model(name[1], weights=None, weights_backbone=None, num_classes=91).eval()
        try:
            self._model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # whatever a damaged pickle raises: the fault is always in this file
            raise ModelFileError(f"{file}: does not fit {name[1]}: {str(error).splitlines()[0][:200]}") from None

    def detect(self, frame: Frame) -> Boxes:
        picture = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1))
        with self._torch.inference_mode():
            found: dict[str, Any] = self._model([self._torch.from_numpy(picture).float() / 255])[0]
        person = (found["labels"] == 1) & (found["scores"] >= self.least)
        return _from_corners(found["boxes"][person].double().numpy(), found["scores"][person].double().numpy())


def _name(*files: Path) -> str:
    """The first file's name, and the first digits of the SHA-256 of all."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file()))
    return f"{files[0].name} {digest.hexdigest()[:8]}"


def _from_corners(corners: NDArray[np.float64], confidence: NDArray[np.float64]) -> Boxes:
    """Boxes from corners (n, 4) of left, top, right, bottom in pixels, and confidence (n,)."""
    boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2], confidence])
    return _in_order(boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:4] > 0).all(axis=1)])


def _in_order(boxes: Boxes) -> Boxes:
    """The most confident first, then by place, so that the order does not depend on threads."""
    return boxes[np.lexsort((boxes[:, 1], boxes[:, 0], -boxes[:, 4]))]
