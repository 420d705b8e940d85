"""A trial of a camera: opened once, one frame, and what the detector sees in it."""

import threading
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import av
import cv2
import numpy as np

from pipeline.cameras.recordings import rate_by, recordings_at, start_of_feed
from pipeline.cameras.secrets import address_with_secret
from pipeline.ingest.capture import open_capture
from pipeline.ingest.frame_clock import HELD
from pipeline.ingest.hardware import PROCESSOR, Decoding, decoding
from pipeline.ingest.live_camera import OPTIONS, fault_of
from pipeline.ingest.looks import View
from pipeline.ingest.video_file import VideoFile
from reid_core.detection import Boxes, Detector, Frame
from schemas.disk import write_whole
from schemas.errors import InputError
from schemas.feeds import Feed, shown_address
from schemas.settings import Settings


@dataclass(frozen=True)
class First:
    """A first frame (h, w, 3) BGR, with the codec and the frames a second that its source states, None: it does not.

    `decoded_by`: the kind of hardware, as FFmpeg names it, or the processor.
    """

    frame: Frame
    codec: str
    fps: float | None
    decoded_by: str = "the processor"


@dataclass(frozen=True)
class Trial:
    """`first`: the whole frame. `part`: what is looked at of it, black where it is masked. `people`: boxes in the part.

    `seconds`: from opening to the first frame.
    """

    first: First
    seconds: float
    part: Frame
    people: Boxes


def try_camera(feed: Feed, settings: Settings, detector: Detector, limit_s: float) -> Trial:
    """Opens the feed and looks at one frame, of a folder at one of its newest file.

    Raises InputError if there is no frame within `limit_s` seconds, without the address's user and password.
    """
    name = shown_address(feed.address)
    address = _newest(Path(feed.address)) if feed.kind == "folder" else address_with_secret(feed, settings)
    name = address if feed.kind == "folder" else name
    began = time.monotonic()
    found: list[First] = []
    faults: list[InputError] = []

    def read() -> None:
        try:
            by = decoding(settings.hardware_decoding)
            found.append(_of_stream(address, name, limit_s, by) if feed.kind == "stream" else _of_file(feed, address))
        except InputError as error:
            faults.append(error)

    thread = threading.Thread(target=read, name="camera trial", daemon=True)
    thread.start()
    thread.join(limit_s)
    if faults:
        raise faults[0]
    if not found:
        raise InputError(f"{name}: no frame within {limit_s:g} s")
    seconds = time.monotonic() - began
    part = View(feed.camera, feed.region, feed.masks).part(found[0].frame)
    (boxes,) = detector.detect([part])
    return Trial(found[0], seconds, part, boxes[boxes[:, 4] >= detector.sure])


def write_picture(trial: Trial, path: Path) -> None:
    """Writes the part that is looked at with the boxes of people, as PNG or JPEG, readable by this user only.

    Raises InputError.
    """
    picture = trial.part.copy()
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
    files = [(recording.modified_ns, str(recording.file)) for recording in recordings_at(folder)]
    if not files:
        raise InputError(f"{folder}: holds no video yet")
    return max(files)[1]


def _of_stream(address: str, name: str, limit_s: float, by: Decoding) -> First:
    opened = False
    accelerator = by.accelerator()
    try:
        with av.open(address, options=OPTIONS, timeout=(limit_s, limit_s), hwaccel=accelerator) as container:
            opened = True
            if not container.streams.video:
                raise InputError(f"{name}: has no video")
            video = container.streams.video[0]
            for frame in container.decode(video):
                if not frame.is_corrupt:
                    picture = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
                    rate, context = video.average_rate or video.guessed_rate, video.codec_context
                    decoder = by.device if by.device is not None and context.is_hwaccel else First.decoded_by
                    return First(picture, context.name, float(rate) if rate else None, decoder)
    except (av.FFmpegError, OSError) as error:
        if accelerator is not None:  # as a camera of `up` does
            return _of_stream(address, name, limit_s, PROCESSOR)
        raise InputError(f"{name}: {fault_of(error, opened=opened)}") from None
    raise InputError(f"{name}: sends no frame that can be read")


def _of_file(feed: Feed, path: str) -> First:
    """The first frame of a file that `urban-reid up` would take in. Raises InputError for one that it would refuse."""
    start = start_of_feed(feed, Path(path), ZoneInfo("UTC"))
    video = VideoFile(Path(path), start.at, start.fps or feed.fps, rate_by=rate_by(feed))
    (_, _, frame), *_ = islice(video, 2 + HELD)  # so many tell whether it states times
    capture = open_capture(path, path, "is no video that can be read")
    try:
        four, fps = int(capture.get(cv2.CAP_PROP_FOURCC)), capture.get(cv2.CAP_PROP_FPS)
        codec = bytes(four >> shift & 0xFF for shift in (0, 8, 16, 24)).decode("ascii", "replace").strip("\0 ")
        return First(frame, codec, fps if 0 < fps < 1000 else None)
    finally:
        capture.release()
