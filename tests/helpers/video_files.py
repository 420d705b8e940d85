"""Small video files, written by OpenCV, and by FFmpeg where they are in no container."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.helpers.assets import asset

RAW = {
    ".m1v": ("mpeg1video", "mpeg1video"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".m4v": ("mpeg4", "m4v"),
    ".h263": ("h263", "h263"),
}
FOURCC = {".avi": "MJPG", ".mjpeg": "MJPG", ".mp4": "mp4v", ".ts": "MP2V"}


def walk(frames: int, per_frame: int = 6) -> list[NDArray[np.uint8]]:
    """Frames of 320 x 240 in which one red figure with a pattern walks to the right."""
    figure = np.full((100, 40, 3), (20, 20, 200), np.uint8)
    figure[20:50:6] = (60, 60, 150)
    found = []
    for number in range(frames):
        frame = np.full((240, 320, 3), 120, np.uint8)
        x = 10 + per_frame * number
        frame[70:170, x : x + 40] = figure[:, : max(320 - x, 0)]
        found.append(frame)
    return found


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], per_second: float = 10.0) -> Path:
    """A file in the format that its suffix names, with evenly spaced frames."""
    size = frames[0].shape[1::-1] if frames else (320, 240)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, _fourcc(FOURCC[path.suffix]), per_second, size)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def write_matroska(path: Path, frames: Sequence[NDArray[np.uint8]], tenths: Sequence[int]) -> Path:
    """A Matroska file with its frames at the given tenths of a second; it states 10 frames/s."""
    raw = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, _fourcc("MJPG"), 10.0, frames[0].shape[1::-1], raw)
    assert writer.isOpened()
    for frame, tenth in zip(frames, tenths, strict=True):
        encoded, data = cv2.imencode(".jpg", frame)
        assert encoded
        writer.set(cv2.VIDEOWRITER_PROP_PTS, tenth)
        writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, 1)
        writer.write(data.reshape(1, -1))
    writer.release()
    return path


def write_raw(path: Path, frames: Sequence[NDArray[np.uint8]], per_second: Fraction) -> Path:
    """A stream outside any container: MPEG-1, MPEG-2, MPEG-4 or H.263, by the suffix; of H.263 at 352 x 288."""
    codec, format_ = RAW[path.suffix]
    size = (352, 288) if codec == "h263" else frames[0].shape[1::-1]
    with av.open(str(path), "w", format=format_) as container:
        video = container.add_stream(codec, rate=per_second)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.asarray(cv2.resize(frame, size), np.uint8), format="bgr24")
            container.mux(video.encode(picture))
        container.mux(video.encode())
    return path


def write_plaza(path: Path) -> Path:
    """Six seconds of a public video in which eight people walk, 768 x 576, 10 frames a second."""
    capture = cv2.VideoCapture(str(asset("data/vtest.avi")))
    return write_video(path, [np.asarray(capture.read()[1], np.uint8) for _ in range(60)])


def _fourcc(name: str) -> int:
    """OpenCV's code of a codec: its four letters, the first in the lowest byte."""
    return int.from_bytes(name.encode(), "little")
