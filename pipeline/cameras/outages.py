"""When a stream was down, debounced."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.cameras.rows import came_up, went_down
from pipeline.store import Store

#: A stream that is back sooner was not down.
DEBOUNCE = timedelta(seconds=10)

_log = logging.getLogger("urban_reid.cameras")


@dataclass(frozen=True)
class Change:
    """The feed came up or went down `at` a time; `reason`: one line on why it is down."""

    up: bool
    at: datetime
    reason: str


@dataclass
class Outages:
    """When a stream was down, debounced: an outage begins with the last frame, once there was none for DEBOUNCE."""

    camera: str
    down: Change | None = None
    written: bool = False

    def take(self, change: Change, store: Store) -> None:
        if not change.up:
            if self.down is None or change.reason != self.down.reason:
                _log.warning("%s: %s; tries again", self.camera, change.reason)
            self.down = change if self.down is None else Change(False, self.down.at, change.reason)
            return
        lasted = change.at - self.down.at if self.down is not None else timedelta()
        if lasted >= DEBOUNCE:
            self._write(store)
        with store.begin() as connection:
            came_up(connection, self.camera, change.at)
        if self.down is not None:
            _log.info("%s: is back after %.0f s", self.camera, lasted.total_seconds())
        self.down, self.written = None, False

    def look(self, store: Store) -> None:
        if self.down is not None and datetime.now(UTC) - self.down.at >= DEBOUNCE:
            self._write(store)

    def _write(self, store: Store) -> None:
        if self.written or self.down is None:
            return
        with store.begin() as connection:
            went_down(connection, self.camera, self.down.at, self.down.reason)
        self.written = True
