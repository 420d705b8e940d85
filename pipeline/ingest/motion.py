"""The motion gate: whether anything in a camera's view has changed, cheaper than any detector."""

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_core.detection import Frame

WIDTH_PX = 192  # of the small picture that is compared
LEAST_CHANGE = 12.0  # gray levels of 255
#: So many pixels of the small picture must change: a fifth of a person of LEAST_HEIGHT_PX in a frame of 768 x 576.
LEAST_PIXELS = 8
LAG_S = 1.0  # a frame is compared with one that is at least this much older, so that slow motion shows too
OPEN_FOR_S = 2.0  # after the last change


class MotionGate:
    """Open while something changes, and OPEN_FOR_S longer."""

    def __init__(self) -> None:
        self._earlier: list[tuple[float, NDArray[np.float32]]] = []
        self._changed_s = -np.inf

    def is_open(self, frame: Frame, at_s: float) -> bool:
        """Takes the next frame (h, w, 3) BGR at `at_s` seconds; whether it is worth a look."""
        size = WIDTH_PX, max(1, round(WIDTH_PX * frame.shape[0] / frame.shape[1]))
        small = cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        gray = np.asarray(small, np.float32)
        while len(self._earlier) > 1 and self._earlier[1][0] <= at_s - LAG_S:
            self._earlier.pop(0)
        # A change of the whole picture's brightness, as by a cloud, is no motion.
        if not self._earlier or self._earlier[0][1].shape != gray.shape:
            self._earlier.clear()
            self._changed_s = at_s
        else:
            change = gray - self._earlier[0][1]
            if np.count_nonzero(np.abs(change - np.median(change)) > LEAST_CHANGE) >= LEAST_PIXELS:
                self._changed_s = at_s
        self._earlier.append((at_s, gray))
        return bool(at_s - self._changed_s <= OPEN_FOR_S)
