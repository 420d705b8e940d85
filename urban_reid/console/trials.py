"""Looks at cameras from the console."""

import time
from dataclasses import dataclass, field
from threading import Lock

from pipeline.cameras.trial import Trial, try_camera
from reid_core.detection import open_detector
from schemas.feeds import Feed
from schemas.settings import Settings

#: A camera that sends no frame within so many seconds fails its trial; what it sent is shown for so many.
_WITHIN_S, _KEPT_S = 12.0, 20.0


@dataclass
class Trials:
    """Looks at cameras, one at a time, whose frames are kept for some seconds."""

    settings: Settings
    _kept: dict[str, tuple[float, Trial]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def look(self, feed: Feed, *, anew: bool = False) -> Trial:
        """A frame of the camera and the people whom the detector sees in it. Raises InputError."""
        key = feed.model_dump_json()
        with self._lock:
            at, trial = self._kept.get(key, (0.0, None))
            if trial is not None and not anew and time.monotonic() - at < _KEPT_S:
                return trial
            trial = try_camera(feed, self.settings, open_detector(self.settings, feed.detector), _WITHIN_S)
            now = time.monotonic()
            self._kept = {kept: one for kept, one in self._kept.items() if now - one[0] < _KEPT_S} | {key: (now, trial)}
            return trial
