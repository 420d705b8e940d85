"""A camera's crops become tracklets, each in the window in which it ends, with the persistent ids of earlier ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import prototypes_of_crops
from pipeline.registry import ModelRow
from pipeline.resolve.features import read_features
from pipeline.resolve.persistent_ids import TrackletIds
from pipeline.resolve.rows import NewIdentity
from pipeline.resolve.tracklets import CropColumns, group
from reid_core.serving.core import ReIDCore
from schemas.calibration import LevelCalibration
from schemas.keys import tracklet_key
from schemas.settings import AssociationSettings
from schemas.times import from_us, window_start

#: Crops of a stretch, which is in memory with its features.
STRETCH = 20_000

# The newest crop up to :start that follows a pause longer than the gap, or is the first: no tracklet reaches across it.
_AFTER_PAUSE = (
    "SELECT max(captured_at) FROM (SELECT captured_at, lag(captured_at) OVER (ORDER BY captured_at) AS before "
    "FROM crop WHERE camera = :camera AND captured_at <= :start AND withdrawn_at IS NULL) AS c "
    "WHERE before IS NULL OR captured_at - before > make_interval(secs => :gap)"
)
# The first crop that follows such a pause in another window, :most crops after :start or at :end; not before :after.
_NEXT = (
    "SELECT captured_at FROM (SELECT captured_at, lag(captured_at) OVER crops AS before, "
    "row_number() OVER crops AS number FROM crop WHERE camera = :camera AND captured_at >= :start "
    "AND withdrawn_at IS NULL WINDOW crops AS (ORDER BY captured_at)) AS c "
    "WHERE captured_at - before > make_interval(secs => :gap) "
    "AND floor(extract(epoch FROM captured_at) / :window) > floor(extract(epoch FROM before) / :window) "
    "AND (number > :most OR captured_at >= CAST(:end AS timestamptz)) AND captured_at >= :after "
    "ORDER BY captured_at LIMIT 1"
)
_STRETCH = text(f"SELECT ({_AFTER_PAUSE}) AS begins, ({_NEXT}) AS next")

_CROPS = (
    "SELECT c.id, c.key, c.captured_at, c.timed, c.track, c.quality, e.v FROM crop c JOIN crop_embedding e "
    "ON e.crop_id = c.id AND e.model_id = :model AND e.day = c.day "
    "WHERE c.camera = :camera AND c.captured_at >= :start AND c.captured_at < CAST(:before AS timestamptz) "
    "AND c.quality >= :quality AND c.withdrawn_at IS NULL ORDER BY c.captured_at, c.key"
)


def first_window(dirty_from: datetime, settings: AssociationSettings) -> datetime:
    """The first window that crops from `dirty_from` on can change: a tracklet that ended there may now continue."""
    earliest = max(dirty_from - timedelta(seconds=settings.passage_gap_s), from_us(0))
    return window_start(earliest, settings.window_s)


def read_crops(
    connection: Connection,
    camera: str,
    start: datetime,
    core: ReIDCore,
    model: ModelRow,
    settings: AssociationSettings,
    before: datetime | None = None,
) -> CropColumns:
    """The camera's crops of sufficient quality, from the last long pause before `start` on, with their features.

    before: without those from then on.
    """
    begins = connection.scalar(text(_AFTER_PAUSE), {"camera": camera, "start": start, "gap": settings.passage_gap_s})
    return _read(connection, camera, begins or start, before, core, model, settings)


def read_stretch(
    connection: Connection,
    camera: str,
    mark: datetime,
    end: datetime | None,
    core: ReIDCore,
    model: ModelRow,
    settings: AssociationSettings,
) -> tuple[CropColumns, datetime | None]:
    """As `read_crops` from the mark's first window on, but no more than about STRETCH crops, and the next crop's time.

    The stretch ends at a long pause between two windows, so that no tracklet and no window reaches across, and not
    before the mark's own window; None for the next where no crop follows. end: what comes later need not be read.
    """
    start = first_window(mark, settings)
    after = window_start(mark, settings.window_s) + timedelta(seconds=settings.window_s)
    at = {"camera": camera, "start": start, "gap": settings.passage_gap_s, "window": settings.window_s}
    found = connection.execute(_STRETCH, at | {"most": STRETCH, "end": end or "infinity", "after": after}).one()
    return _read(connection, camera, found.begins or start, found.next, core, model, settings), found.next


def _read(
    connection: Connection,
    camera: str,
    start: datetime,
    before: datetime | None,
    core: ReIDCore,
    model: ModelRow,
    settings: AssociationSettings,
) -> CropColumns:
    rows, features = read_features(
        connection,
        core,
        model,
        _CROPS,
        {
            "camera": camera,
            "start": start,
            "before": before or "infinity",
            "quality": settings.min_quality,
        },
        {
            "id": "int8",
            "key": "bytea",
            "captured_at": "timestamptz",
            "timed": "bool",
            "track": "text",
            "quality": "float4",
        },
        camera,
    )
    return CropColumns(
        ids=[int(i) for i in rows["id"]],
        keys=[bytes(key) for key in rows["key"]],
        time_us=[int(us) for us in rows["captured_at"]],
        timed=[bool(timed) for timed in rows["timed"]],
        tracks=list(rows["track"]),
        quality=np.asarray(rows["quality"], dtype=np.float64),
        features=features,
    )


@dataclass(frozen=True, slots=True)
class Tracklet:
    key: bytes
    rows: list[int]  # row numbers of its crops, in time order


def tracklets_by_window(
    crops: CropColumns, core: ReIDCore, calibration: LevelCalibration | None, settings: AssociationSettings
) -> dict[datetime, list[Tracklet]]:
    """All tracklets of the crops by the window in which they end; the tracklets of a window by key."""
    tracklets: dict[datetime, list[Tracklet]] = {}
    for rows in group(crops, round(settings.passage_gap_s * 1e6), core, calibration):
        window = window_start(from_us(crops.time_us[rows[-1]]), settings.window_s)
        tracklets.setdefault(window, []).append(Tracklet(tracklet_key(crops.keys[row] for row in rows), rows))
    return {window: sorted(its, key=lambda tracklet: tracklet.key) for window, its in sorted(tracklets.items())}


def new_versions(
    connection: Connection,
    camera: str,
    crops: CropColumns,
    changed: Mapping[datetime, Sequence[Tracklet]],
    settings: AssociationSettings,
    new_id: Callable[[], int],
    *,
    is_first: bool = False,
) -> dict[datetime, list[NewIdentity]]:
    """The tracklets of the windows that are written again, as new identities, by window in the order given.

    is_first: nothing was ever written for the camera, so that no tracklet had an id before.
    """
    tracklets = sorted((tracklet for its in changed.values() for tracklet in its), key=lambda tracklet: tracklet.rows)
    earlier = [] if is_first else [crops.ids[row] for t in tracklets for row in t.rows]
    ids = TrackletIds(connection, camera, earlier, list(changed))
    claimed = {tracklet.key: ids.claim([crops.ids[row] for row in tracklet.rows]) for tracklet in tracklets}
    return {
        window: [_version(crops, tracklet, claimed[tracklet.key], new_id(), settings) for tracklet in its]
        for window, its in changed.items()
    }


def _version(
    crops: CropColumns, tracklet: Tracklet, persistent_id: UUID, id_: int, settings: AssociationSettings
) -> NewIdentity:
    rows = tracklet.rows
    first_us, last_us = crops.time_us[rows[0]], crops.time_us[rows[-1]]
    return NewIdentity(
        id=id_,
        key=tracklet.key,
        persistent_id=persistent_id,
        first_seen_us=first_us,
        last_seen_us=last_us,
        timed=crops.timed[rows[0]],
        crops=len(rows),
        prototypes=prototypes_of_crops(crops.features[rows], crops.quality[rows], settings.medoids),
        tracklets=(id_,),
        spans=np.array([[0], [first_us], [last_us]]),  # in its own geometry the camera has number 0
        crop_ids=[crops.ids[row] for row in rows],
    )
