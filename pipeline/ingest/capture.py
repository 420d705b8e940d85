"""Opening a video with OpenCV: one way for files and cameras, silent, with a limit on the size of frames."""

import os
from collections.abc import Sequence

import cv2

from schemas.errors import InputError

#: Pixels of the largest frame: 8K, and cameras that look all around.
MAX_FRAME_PIXELS = 64_000_000

# FFmpeg writes to the terminal by itself, and an address with a password may stand in what it writes. OpenCV reads this
# variable once, when the process opens its first video.
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"


def open_capture(address: str, name: str, fault: str, options: Sequence[int] = ()) -> cv2.VideoCapture:
    """Opens a path or an address. Raises InputError, with `name` in place of the address and `fault` as the reason."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, options)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise InputError(f"{name}: {fault}")
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MAX_FRAME_PIXELS:
        capture.release()
        raise InputError(f"{name}: frames of {width:.0f} x {height:.0f} pixels are too large")
    return capture
