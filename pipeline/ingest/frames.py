"""Frames with their times, from a video file or a camera."""

import re
from datetime import datetime
from pathlib import Path

from pipeline.ingest.live_camera import LiveCamera
from pipeline.ingest.video_file import VideoFile
from schemas.errors import InputError
from schemas.settings import Settings

Frames = VideoFile | LiveCamera


def open_frames(source: str, start: datetime | None, settings: Settings, fps: float | None = None) -> Frames:
    """Opens a video file, or a camera's rtsp:// or rtsps:// address; `start` and `fps` as for VideoFile.

    Raises InputError.
    """
    if re.match(r"rtsps?://", source, re.IGNORECASE):
        if start is not None or fps is not None:
            raise InputError("--start and --fps belong to a file; a live camera's frames carry their time of arrival")
        return LiveCamera(source, settings)
    if "://" in source:
        raise InputError(f"{source.partition('://')[0][:20]}:// is not supported; give a file or an rtsp:// address")
    return VideoFile(Path(source), start, fps)
