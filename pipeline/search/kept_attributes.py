"""Attributes of a unit's tracklets in memory: read when a search first asks for them, and in step from then on."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection, text

from pipeline.attributes.read import Attributes
from pipeline.search.index_rows import IndexRows
from schemas.arrays import Ints

_PROGRESS = text(
    "SELECT camera, model, tracklet FROM attributes_progress WHERE camera = :unit OR starts_with(camera, :unit || '/')"
)
_NONE = np.empty(0, np.int64)


class KeptAttributes:
    """What is known of the tracklets of an index's identities: about 80 bytes each."""

    def __init__(self) -> None:
        self.known = Attributes.none()
        self._asked: Ints = _NONE  # tracklets that were read, in order
        self._progress: dict[tuple[str, str], int] = {}  # by camera and model, the last tracklet that was recognized
        self._removals: str | None = None

    def refresh(self, connection: Connection, unit: str, every: Sequence[IndexRows], removals: str | None) -> None:
        """Reads what was recognized since, or is of tracklets that came; all again where something was removed."""
        if removals != self._removals:
            self.clear()
            self._removals = removals
        progress = {(row.camera, row.model): int(row.tracklet) for row in connection.execute(_PROGRESS, {"unit": unit})}
        since: dict[str, int] = {}  # of the cameras that went on: up to where they were
        for (camera, model), last in progress.items():
            before = self._progress.get((camera, model), 0)
            if before != last:
                since[camera] = min(before, since.get(camera, before))
        tracklets = np.unique(np.concatenate([_NONE, *(rows.tracklets() for rows in every)]))
        later = np.concatenate([_NONE, *(rows.tracklets(since) for rows in every)])
        wanted = np.union1d(np.setdiff1d(tracklets, self._asked), later)
        if len(wanted) or len(tracklets) != len(self._asked):
            stays = self.known.rows(np.isin(self.known.ids, tracklets))
            self.known.overwrite()
            self.known = stays.with_more(Attributes.read(connection, wanted))
        self._asked, self._progress = tracklets, progress

    def clear(self) -> None:
        """Overwrites them."""
        self.known.overwrite()
        self.known, self._asked, self._progress = Attributes.none(), _NONE, {}
