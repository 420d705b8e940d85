"""A recording played as a camera would send it, or some times faster."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.ingest.video_file import RATE_BY, VideoFile
from reid_core.detection import Frame


class PacedFile(VideoFile):
    """A video file whose frames come at `pace` times their own pace, by the steady clock, and no sooner.

    It waits for its reader, drops nothing, and its frames have the file's times: the crops are those of VideoFile.
    """

    def __init__(
        self, path: Path, start: datetime | None, fps: float | None = None, *, pace: float, rate_by: str = RATE_BY
    ) -> None:
        super().__init__(path, start, fps, rate_by=rate_by)
        self._pace = pace

    def __iter__(self) -> Iterator[tuple[datetime, timedelta, Frame]]:
        begun, waiting = time.monotonic(), threading.Event()
        for moment, since, frame in super().__iter__():
            waiting.wait(max(begun + since.total_seconds() / self._pace - time.monotonic(), 0))
            yield moment, since, frame
