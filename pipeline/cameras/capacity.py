"""How many looks a second a host can make: a trial of its default detector when the cameras' process starts."""

import logging
import time
from dataclasses import dataclass
from statistics import median

import numpy as np

from reid_core.detection import open_detector
from schemas.errors import UrbanReidError
from schemas.settings import Settings

#: Share of the time of the core that cameras may take; the rest is for resolve and search.
BUSY = 0.8
_FRAME = (720, 1280, 3)
_LOOKS = 5
#: Of a host whose default detector does not open, which the doctor tells of.
_UNKNOWN_LOOK_S = 0.2

_log = logging.getLogger("urban_reid.cameras")


@dataclass(frozen=True)
class Capacity:
    """Looks a second that a host's cameras may ask for, and how long one look takes, seconds."""

    looks_per_s: float
    look_s: float


def measure_capacity(settings: Settings) -> Capacity:
    """Times the default detector on a frame of 1280 x 720; `URBAN_REID_CAMERA_LOOKS_PER_S` says otherwise."""
    look_s = _UNKNOWN_LOOK_S
    try:
        detector, frame = open_detector(settings), np.random.default_rng(0).integers(0, 256, _FRAME, np.uint8)
        took = []
        for _ in range(1 + _LOOKS):
            began = time.perf_counter()
            detector.detect([frame])
            took.append(time.perf_counter() - began)
        look_s = median(took[1:])  # the first one loads the network
    except UrbanReidError as error:
        _log.warning("how long a look takes is not known: %s", error)
    asked = settings.camera_looks_per_s
    return Capacity(BUSY / look_s if asked is None else asked, look_s)
