"""A camera's crops become tracklets, each in the window in which it ends, and keep the ids they were known by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import of_crops
from pipeline.resolve.tracklets import CropColumns, group
from pipeline.resolve.write import NewIdentity
from pipeline.store.copy import copy_out
from reid_core.serving.core import ReIDCore
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


@dataclass(frozen=True, slots=True)
class Tracklet:
    key: bytes
    rows: list[int]  # of its crops, by time


def tracklets_by_window(
    crops: CropColumns, core: ReIDCore, calibration: LevelCalibration | None, settings: AssociationSettings
) -> dict[datetime, list[Tracklet]]:
    """All tracklets of the crops, by the window in which they end, each window's by key."""
    result: dict[datetime, list[Tracklet]] = {}
    for rows in group(crops, round(settings.passage_gap_s * 1e6), core, calibration):
        end = window_start(from_us(crops.time_us[rows[-1]]), settings.window_s)
        result.setdefault(end, []).append(Tracklet(tracklet_key(crops.keys[row] for row in rows), rows))
    return {window: sorted(found, key=lambda tracklet: tracklet.key) for window, found in sorted(result.items())}


def versions(
    connection: Connection,
    camera: str,
    crops: CropColumns,
    anew: Mapping[datetime, Sequence[Tracklet]],
    settings: AssociationSettings,
    new_id: Callable[[], int],
) -> dict[datetime, list[NewIdentity]]:
    """What is to be written of the windows that are made anew, in the order given."""
    tracklets = sorted((tracklet for its in anew.values() for tracklet in its), key=lambda tracklet: tracklet.rows)
    known = KnownTracklets(connection, camera, [crops.ids[row] for t in tracklets for row in t.rows], list(anew))
    names = {tracklet.key: known.claim([crops.ids[row] for row in tracklet.rows]) for tracklet in tracklets}
    return {
        window: [_version(crops, tracklet, names[tracklet.key], new_id(), settings) for tracklet in its]
        for window, its in anew.items()
    }


def _version(
    crops: CropColumns, tracklet: Tracklet, persistent_id: UUID, own: int, settings: AssociationSettings
) -> NewIdentity:
    rows = tracklet.rows
    first_us, last_us = crops.time_us[rows[0]], crops.time_us[rows[-1]]
    return NewIdentity(
        id=own,
        key=tracklet.key,
        persistent_id=persistent_id,
        first_seen_us=first_us,
        last_seen_us=last_us,
        timed=crops.timed[rows[0]],
        crops=len(rows),
        prototypes=of_crops(crops.features[rows], crops.quality[rows], settings.medoids),
        tracklets=(own,),
        spans=np.array([[0], [first_us], [last_us]]),  # the camera is its own number 0
        crop_ids=[crops.ids[row] for row in rows],
    )


class KnownTracklets:
    """Persistent ids of earlier versions of the tracklets, by crop; each is given once.

    An id that a tracklet of another window bears is not given: that one stands, and a second with its id would be taken
    for a newer version of it.
    """

    _HELD = text(
        "SELECT m.crop_id, i.persistent_id, min(i.id) AS oldest FROM identity_member m "
        "JOIN identity i ON i.id = m.identity_id WHERE m.crop_id = ANY(:crops) GROUP BY 1, 2 ORDER BY 3"
    )
    _STANDING = text(
        "SELECT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id WHERE i.unit = :camera "
        "AND i.persistent_id = ANY(:ids) AND i.window_start <> ALL(:anew) AND r.superseded_at IS NULL"
    )

    def __init__(self, connection: Connection, camera: str, crop_ids: Sequence[int], anew: Sequence[datetime]) -> None:
        """`anew`: the windows whose tracklets give up their ids."""
        self._ids: dict[int, list[UUID]] = {}
        for row in connection.execute(self._HELD, {"crops": list(crop_ids)}):
            self._ids.setdefault(row.crop_id, []).append(row.persistent_id)
        at = {"camera": camera, "ids": list({own for ids in self._ids.values() for own in ids}), "anew": list(anew)}
        self._given: set[UUID] = set(connection.execute(self._STANDING, at).scalars()) if self._ids else set()

    def claim(self, crop_ids: Sequence[int]) -> UUID:
        """The oldest id by which one of these crops was known, or a new one."""
        for crop in crop_ids:
            for persistent_id in self._ids.get(crop, []):
                if persistent_id not in self._given:
                    self._given.add(persistent_id)
                    return persistent_id
        return uuid4()
