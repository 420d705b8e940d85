"""Context frames: the whole frame of a track's first crop, black where it is masked, of cameras that ask for them.

Their files lie in `context/DISTRICT/DAY/`, by the SHA-256 of the picture as those of crops. They go with the batch that
brought them, and by age.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from pipeline.crops.crop_store import CropStore, Place, place_of_crop
from pipeline.crops.held import AT_A_TIME, unheld
from schemas.settings import Settings


@dataclass(frozen=True)
class ContextFrame:
    """A stored frame. `picture`: its SHA-256."""

    camera: str
    track: str
    captured_at: datetime
    picture: bytes
    width_px: int
    height_px: int


def context_store(settings: Settings) -> CropStore:
    """The store of context frames, which is kept as that of crops is."""
    return CropStore(settings, "context")


_INSERT = text(
    "INSERT INTO context_frame (camera, track, captured_at, picture, width_px, height_px, batch_id) "
    "VALUES (:camera, :track, :captured_at, :picture, :width_px, :height_px, :batch) ON CONFLICT DO NOTHING"
)
_OF_TRACKLETS = text(
    "SELECT DISTINCT ON (m.identity_id) m.identity_id AS tracklet, f.camera, f.track, f.captured_at, f.picture, "
    "f.width_px, f.height_px FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "JOIN context_frame f ON f.camera = c.camera AND f.track = c.track "
    "WHERE m.identity_id = ANY(:ids) AND c.withdrawn_at IS NULL ORDER BY m.identity_id"
)


def write_frames(connection: Connection, frames: Iterable[ContextFrame], batch: int) -> None:
    """Writes the rows of frames whose files are stored; of a track that has one already, nothing."""
    for frame in frames:
        connection.execute(_INSERT, vars(frame) | {"batch": batch})


def frames_of(connection: Connection, tracklets: Sequence[int]) -> dict[int, ContextFrame]:
    """The context frame of each tracklet (id) that has one."""
    found = {}
    for row in connection.execute(_OF_TRACKLETS, {"ids": sorted(set(tracklets))}):
        fields = {name: value for name, value in row._mapping.items() if name != "tracklet"}
        found[row.tracklet] = ContextFrame(**fields | {"picture": bytes(row.picture)})
    return found


def count_frames(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT count(*) FROM context_frame")) or 0)


def named_frames(connection: Connection) -> set[tuple[Place, bytes]]:
    """Place and hash of each frame that a row names."""
    query = "SELECT DISTINCT split_part(camera, '/', 1) AS owner, day, picture FROM context_frame"
    rows = connection.execute(text(query))
    return {(Place(row.owner, row.day), bytes(row.picture)) for row in rows}


def remove_of_batch(connection: Connection, settings: Settings, batch: int) -> int:
    """Removes the frames of a batch, rows and files; how many. Nothing may be taken in meanwhile (`lock_crops`)."""
    return _remove(connection, settings, "batch_id = :batch", {"batch": batch})


def remove_without_crops(connection: Connection, settings: Settings, frames_of_crops: Sequence[int]) -> int:
    """Removes the frames of tracks, among those of these crops (ids), of which no crop takes part any more."""
    return _remove(
        connection,
        settings,
        "(camera, track) IN (SELECT w.camera, w.track FROM crop w WHERE w.id = ANY(:ids)) AND NOT EXISTS ("
        "  SELECT FROM crop c WHERE c.camera = context_frame.camera AND c.track = context_frame.track "
        "  AND c.captured_at >= context_frame.captured_at AND c.withdrawn_at IS NULL)",
        {"ids": list(frames_of_crops)},
    )


def remove_expired(connection: Connection, settings: Settings) -> int:
    """Removes at most AT_A_TIME of the frames that were stored longer ago than they are to be kept; how many."""
    condition = (
        "(camera, track) IN (SELECT camera, track FROM context_frame WHERE stored_at < now() - :kept "
        f"ORDER BY stored_at LIMIT {AT_A_TIME})"
    )
    return _remove(connection, settings, condition, {"kept": timedelta(days=settings.context_days)})


def count_expired(connection: Connection, settings: Settings) -> int:
    query = text("SELECT count(*) FROM context_frame WHERE stored_at < now() - :kept")
    return int(connection.scalar(query, {"kept": timedelta(days=settings.context_days)}) or 0)


def _remove(connection: Connection, settings: Settings, condition: str, of: dict[str, object]) -> int:
    """Removes rows, and then their files that no other row names, before the transaction ends."""
    query = f"DELETE FROM context_frame WHERE {condition} RETURNING camera, captured_at, picture"  # nosec B608
    gone = connection.execute(text(query), of).all()
    pictures = {(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in gone}
    context_store(settings).remove(unheld(connection, "context", pictures))
    return len(gone)
