"""A trial of a camera: opened once, one frame, and what the detector sees in it."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.cameras.secrets import address_with_secret
from pipeline.ingest.capture import open_capture
from reid_core.detection import Boxes, Detector, Frame
from schemas.disk import write_whole
from schemas.errors import InputError
from schemas.feeds import Feed, shown_address
from schemas.settings import Settings


@dataclass(frozen=True)
class Trial:
    """`fps`: as the source states it; None where it does not. `seconds`: from opening to the first frame."""

    width: int
    height: int
    codec: str
    fps: float | None
    seconds: float
    people: Boxes  # in pixels of the whole frame
    frame: Frame


def try_camera(feed: Feed, settings: Settings, detector: Detector, limit_s: float) -> Trial:
    """Opens the feed and looks at one frame, of a folder at one of its newest file.

    Raises InputError if there is no frame within `limit_s` seconds, without the address's user and password.
    """
    name = shown_address(feed.address)
    address = _newest(Path(feed.address)) if feed.kind == "folder" else address_with_secret(feed, settings)
    found: list[tuple[Frame, str, float, float]] = []
    faults: list[InputError] = []

    def read() -> None:
        try:
            found.append(_first_frame(address, name, feed.kind == "stream", limit_s))
        except InputError as error:
            faults.append(error)

    thread = threading.Thread(target=read, name="camera trial", daemon=True)
    thread.start()
    thread.join(limit_s)
    if faults:
        raise faults[0]
    if not found:
        raise InputError(f"{name}: no frame within {limit_s:g} s")
    frame, codec, fps, seconds = found[0]
    height, width = frame.shape[:2]
    return Trial(width, height, codec, fps if 0 < fps < 1000 else None, seconds, _people(feed, frame, detector), frame)


def write_picture(trial: Trial, path: Path) -> None:
    """Writes the frame with the boxes of people, as PNG or JPEG, readable by this user only. Raises InputError."""
    picture = trial.frame.copy()
    for x, y, width, height, _ in trial.people.round().astype(int).tolist():
        cv2.rectangle(picture, (x, y), (x + width, y + height), (0, 200, 255), 2)
    try:
        done, encoded = cv2.imencode(path.suffix or ".", picture)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{path}: write a name that ends in .png or .jpg")
    write_whole(path, encoded.tobytes(), mode=0o600)


def _newest(folder: Path) -> str:
    try:
        files = [(file.stat().st_mtime, str(file)) for file in folder.iterdir() if file.is_file()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from None
    if not files:
        raise InputError(f"{folder}: holds no file yet")
    return max(files)[1]


def _first_frame(address: str, name: str, is_stream: bool, limit_s: float) -> tuple[Frame, str, float, float]:
    began = time.monotonic()
    limit_ms = int(limit_s * 1000)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms] if is_stream else []
    fault = "does not answer, or refuses its user and password" if is_stream else "is no video that can be read"
    capture = open_capture(address, name, fault, options)
    try:
        done, frame = capture.read()
        if not done:
            raise InputError(f"{name}: sends no frame that can be read")
        four = int(capture.get(cv2.CAP_PROP_FOURCC))
        codec = bytes(four >> shift & 0xFF for shift in (0, 8, 16, 24)).decode("ascii", "replace").strip("\0 ")
        return np.asarray(frame, np.uint8), codec, capture.get(cv2.CAP_PROP_FPS), time.monotonic() - began
    finally:
        capture.release()


def _people(feed: Feed, frame: Frame, detector: Detector) -> Boxes:
    """The people that the detector is sure of, in pixels of the whole frame."""
    height, width = frame.shape[:2]
    seen = frame.copy()
    for mask in feed.masks:
        cv2.fillPoly(seen, [np.round(np.array(mask) * [width, height]).astype(np.int32)], (0, 0, 0))
    x, y, w, h = feed.region or (0, 0, width, height)
    if x >= width or y >= height:
        raise InputError(f"{feed.camera}: its region lies outside the frame of {width} x {height} pixels")
    (boxes,) = detector.detect([np.ascontiguousarray(seen[y : y + h, x : x + w])])
    return boxes[boxes[:, 4] >= detector.sure] + [x, y, 0, 0, 0]
