"""HOG and a linear SVM, OpenCV's default people detector (Dalal and Triggs, 2005): upright people from 100 px on."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from reid_core.detection.detector import Boxes, Frame, in_order

#: Held while OpenCV's number of threads, which is the process's, is changed.
_THREADS = threading.Lock()


class HogDetector:
    """Needs nothing but OpenCV. Its confidence is m / (m + 1) of the margin m of the SVM."""

    sure = 0.35
    name = "HOG"

    def __init__(self) -> None:
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())  # type: ignore[attr-defined]

    def detect(self, frames: Sequence[Frame]) -> list[Boxes]:
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> Boxes:
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
        return in_order(np.column_stack([boxes, margin / (margin + 1)]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs OpenCV in one thread.

    In several, HOG's detectMultiScale appends the boxes of a scale under one lock and their margins under another, so
    that now and then boxes get the margins of another scale, and the same frame has other confidences.
    """
    with _THREADS:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            yield
        finally:
            cv2.setNumThreads(threads)
