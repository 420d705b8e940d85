"""Trials of cameras from the console."""

from dataclasses import dataclass, field
from threading import Lock

from pipeline.cameras.trial import Trial, try_camera
from reid_core.detection import open_detector
from schemas.feeds import Feed
from schemas.settings import Settings
from urban_reid.console.kept import Kept

#: A camera that sends no frame within so many seconds fails its trial; what it sent is kept for so many, to be shown.
_WITHIN_S, _KEPT_S = 12.0, 60.0


@dataclass
class Trials:
    """Trials of cameras, one at a time, which are kept for a minute by the camera's code."""

    settings: Settings
    _kept: Kept[Trial] = field(default_factory=lambda: Kept(_KEPT_S))
    _lock: Lock = field(default_factory=Lock)

    def look(self, feed: Feed) -> Trial:
        """A frame of the camera and the people whom the detector sees in it. Raises InputError."""
        with self._lock:
            trial = try_camera(feed, self.settings, open_detector(self.settings, feed.detector), _WITHIN_S)
            self._kept.put(feed.camera, trial)
            return trial

    def kept(self, camera: str) -> Trial | None:
        """The camera's last trial, if it is not too old."""
        return self._kept.get(camera)
