"""Detectors: boxes of the people in frames.

`open_detector` opens one; `files` keeps those of a home. Importing this package loads no engine: each is loaded by the
detector that needs it.
"""

from reid_core.detection.detector import Boxes, Detector, Frame
from reid_core.detection.opening import open_detector

__all__ = ["Boxes", "Detector", "Frame", "open_detector"]
