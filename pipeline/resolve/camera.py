"""A camera's windows: its crops become tracklets, each in the window in which it ends."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import of_crops
from pipeline.resolve.write import NewIdentity
from pipeline.store.copy import copy_out
from pipeline.tracklets import CropColumns, group
from reid_core.core import ReIDCore
from schemas.calibration import LevelCalibration
from schemas.keys import tracklet_key
from schemas.settings import AssociationSettings
from schemas.times import from_us, window_start

# The last moment up to :start at which the camera saw nobody for longer than the gap: no tracklet reaches across it.
_QUIET = text(
    "SELECT max(captured_at) FROM (SELECT captured_at, lag(captured_at) OVER (ORDER BY captured_at) AS before "
    "FROM crop WHERE camera = :camera AND captured_at <= :start) AS c "
    "WHERE before IS NULL OR captured_at - before > make_interval(secs => :gap)"
)

_CROPS = (
    "SELECT c.id, c.key, c.captured_at, c.timed, c.track, c.quality, e.v FROM crop c JOIN crop_embedding e "
    "ON e.crop_id = c.id AND e.model_id = :model AND e.day = (c.captured_at AT TIME ZONE 'UTC')::date "
    "WHERE c.camera = :camera AND c.captured_at >= :start AND c.quality >= :quality "
    "ORDER BY c.captured_at, c.key"
)


def first_window(dirty_from: datetime, settings: AssociationSettings) -> datetime:
    """The first window that crops from `dirty_from` on can change: a tracklet that ended there may now go on."""
    earliest = max(dirty_from - timedelta(seconds=settings.passage_gap_s), from_us(0))
    return window_start(earliest, settings.window_s)


def read_crops(
    connection: Connection, camera: str, start: datetime, model_id: int, settings: AssociationSettings
) -> CropColumns:
    """The camera's crops from the last quiet moment before `start` on."""
    quiet = connection.execute(
        _QUIET, {"camera": camera, "start": start, "gap": settings.passage_gap_s}
    ).scalar_one_or_none()
    rows = copy_out(
        connection,
        _CROPS,
        {"camera": camera, "model": model_id, "start": quiet or start, "quality": settings.min_quality},
        {
            "id": "int8",
            "key": "bytea",
            "captured_at": "timestamptz",
            "timed": "bool",
            "track": "text",
            "quality": "float4",
            "v": "halfvec",
        },
    )
    return CropColumns(
        ids=[int(i) for i in rows["id"]],
        keys=[bytes(key) for key in rows["key"]],
        time_us=[int(us) for us in rows["captured_at"]],
        timed=[bool(timed) for timed in rows["timed"]],
        tracks=list(rows["track"]),
        quality=np.asarray(rows["quality"], dtype=np.float64),
        features=np.asarray(rows["v"], dtype=np.float64),
    )


def tracklets_by_window(
    crops: CropColumns,
    core: ReIDCore,
    calibration: LevelCalibration | None,
    settings: AssociationSettings,
    known: "KnownTracklets",
    new_id: Callable[[], int],
) -> dict[datetime, list[NewIdentity]]:
    """All tracklets of the crops, by the window in which they end, each window's by key."""
    result: dict[datetime, list[NewIdentity]] = {}
    for rows in group(crops, round(settings.passage_gap_s * 1e6), core, calibration):
        features, quality = crops.features[rows], crops.quality[rows]
        crop_ids = [crops.ids[row] for row in rows]
        own, first_us, last_us = new_id(), crops.time_us[rows[0]], crops.time_us[rows[-1]]
        identity = NewIdentity(
            id=own,
            key=tracklet_key(crops.keys[row] for row in rows),
            persistent_id=known.claim(crop_ids),
            first_seen_us=first_us,
            last_seen_us=last_us,
            timed=crops.timed[rows[0]],
            crops=len(rows),
            prototypes=of_crops(features, quality, settings.medoids),
            tracklets=(own,),
            spans=np.array([[0], [first_us], [last_us]]),  # the camera is its own number 0
            crop_ids=crop_ids,
        )
        end = window_start(from_us(identity.last_seen_us), settings.window_s)
        result.setdefault(end, []).append(identity)
    return {window: sorted(found, key=lambda identity: identity.key) for window, found in sorted(result.items())}


class KnownTracklets:
    """Persistent ids of earlier versions of the tracklets, by crop; each is given once."""

    _HELD = text(
        "SELECT m.crop_id, i.persistent_id, min(i.id) AS oldest FROM identity_member m "
        "JOIN identity i ON i.id = m.identity_id WHERE m.crop_id = ANY(:crops) GROUP BY 1, 2 ORDER BY 3"
    )

    def __init__(self, connection: Connection, crop_ids: Sequence[int]) -> None:
        self._ids: dict[int, list[UUID]] = {}
        for row in connection.execute(self._HELD, {"crops": list(crop_ids)}):
            self._ids.setdefault(row.crop_id, []).append(row.persistent_id)
        self._given: set[UUID] = set()

    def claim(self, crop_ids: Sequence[int]) -> UUID:
        """The id by which one of these crops was known, or a new one."""
        for crop in crop_ids:
            for persistent_id in self._ids.get(crop, []):
                if persistent_id not in self._given:
                    self._given.add(persistent_id)
                    return persistent_id
        return uuid4()
