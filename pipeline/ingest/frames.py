"""Frames with their times, from a video file or a camera."""

import re
from datetime import datetime
from functools import partial
from pathlib import Path

from pipeline.ingest.hardware import decoding
from pipeline.ingest.live_camera import PATIENCE_S, LiveCamera, public_name
from pipeline.ingest.video_file import VideoFile
from schemas.errors import InputError
from schemas.feeds import with_credentials
from schemas.settings import Settings

Frames = VideoFile | LiveCamera


def open_frames(
    source: str, start: datetime | None, settings: Settings, fps: float | None = None, *, looks_per_s: float = 10.0
) -> Frames:
    """Opens a video file, or a camera's rtsp:// or rtsps:// address, which is given up after PATIENCE_S.

    `start` and `fps` as for VideoFile, `looks_per_s` as for LiveCamera. Raises InputError.
    """
    if re.match(r"rtsps?://", source, re.IGNORECASE):
        if start is not None or fps is not None:
            raise InputError("--start and --fps belong to a file; a live camera's frames carry their time of arrival")
        address = partial(_with_common, source, settings)
        by = decoding(settings.hardware_decoding)
        live = LiveCamera(address, public_name(source), looks_per_s=looks_per_s, patience_s=PATIENCE_S, decoding=by)
        live.notes += [by.note] if by.note else []
        return live
    if "://" in source:
        raise InputError(f"{source.partition('://')[0][:20]}:// is not supported; give a file or an rtsp:// address")
    return VideoFile(Path(source), start, fps)


def _with_common(source: str, settings: Settings) -> str:
    """The camera's address with the settings' user and password, where they have both."""
    if settings.rtsp_user is None or settings.rtsp_password is None:
        return source
    return with_credentials(source, settings.rtsp_user.get_secret_value(), settings.rtsp_password.get_secret_value())
