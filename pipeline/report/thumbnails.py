"""Thumbnails of crops: which ones are shown, and their files beside the pages."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
from sqlalchemy import Connection, text

from pipeline.crops.context_frames import frames_of
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.privacy import without_face, without_faces
from pipeline.crops.quality import decode
from pipeline.ingest.features import SOURCE
from schemas.disk import write_whole
from schemas.errors import PictureError, StoreError

#: Height of a file; larger than any height it is shown at, so that it is sharp on screens with fine pixels.
HEIGHT_PX = 160
#: The same of a context frame, which a reader may open.
CONTEXT_PX = 720
_WIDEST = 1.2  # width to height; wider ones are cut at the sides
_QUALITY = 82  # of the JPEG


@dataclass(frozen=True)
class Picture:
    """The picture of a stored crop, or a context frame. Its file is at most `most_px` high, and cut if it is wider than
    `widest` times its height."""

    camera: str
    sha256: bytes
    width_px: int
    height_px: int
    taken: datetime
    quality: float
    most_px: int = HEIGHT_PX
    widest: float = _WIDEST
    is_frame: bool = False

    @property
    def name(self) -> str:
        return f"{self.sha256.hex()}.jpg"

    def width_at(self, height: float) -> float:
        """Its width when shown at `height`."""
        return height * min(self.width_px / self.height_px, self.widest)


# The best crop of each third of a tracklet: several pictures then show a person from several sides.
_PICTURES = text(
    "SELECT DISTINCT ON (tracklet, third) * FROM (SELECT m.identity_id AS tracklet, c.camera, c.picture, c.width_px, "
    "  c.height_px, c.captured_at, c.quality, c.key, "
    "  ntile(3) OVER (PARTITION BY m.identity_id ORDER BY c.captured_at, c.key) AS third "
    "  FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "  WHERE m.identity_id = ANY(:ids) AND c.source <> :without AND c.withdrawn_at IS NULL) AS parts "
    "ORDER BY tracklet, third, quality DESC, key"
)


def pictures_of(connection: Connection, tracklets: Iterable[int]) -> dict[int, list[Picture]]:
    """Up to three pictures of each tracklet (id) in time order. Crops ingested as features have none."""
    pictures: dict[int, list[Picture]] = {}
    for row in connection.execute(_PICTURES, {"ids": sorted(set(tracklets)), "without": SOURCE}):
        picture = Picture(row.camera, bytes(row.picture), row.width_px, row.height_px, row.captured_at, row.quality)
        pictures.setdefault(row.tracklet, []).append(picture)
    return pictures


def contexts_of(connection: Connection, tracklets: Iterable[int]) -> dict[int, Picture]:
    """The context frame of each tracklet (id) that has one."""
    return {
        tracklet: Picture(
            frame.camera, frame.picture, frame.width_px, frame.height_px, frame.captured_at, 1.0, CONTEXT_PX, 4.0, True
        )
        for tracklet, frame in frames_of(connection, list(tracklets)).items()
    }


def best(pictures: Sequence[Picture]) -> Picture:
    return max(pictures, key=lambda picture: (picture.quality, picture.sha256))


def write_thumbnails(
    wanted: Iterable[tuple[CropStore, Picture]],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    blurred: bool = True,
) -> set[str]:
    """Writes each picture, from its store, once into `folder` under its name, with one in memory at a time.

    blurred: without faces (`pipeline.crops.privacy`).
    Returns the names of pictures that are missing or damaged in the crop store; these are not written.
    """
    pictures = sorted({picture.name: (store, picture) for store, picture in wanted}.items())
    missing = set()
    for done, (name, (store, picture)) in enumerate(pictures, 1):
        try:
            encoded = store.get(place_of_crop(picture.camera, picture.taken), picture.sha256)
            data = thumbnail(picture, encoded, blurred)
        except (StoreError, PictureError):
            missing.add(name)
        else:
            write_whole(folder / name, data)
        if progress is not None:
            progress(done, len(pictures))
    return missing


def thumbnail(picture: Picture, data: bytes, blurred: bool = True) -> bytes:
    """The file of an encoded picture. blurred: without the face, or all faces of a frame."""
    pixels = decode(data)
    if blurred:
        pixels = without_faces(pixels) if picture.is_frame else without_face(pixels)
    height, width = pixels.shape[:2]
    kept = min(width, round(height * picture.widest))
    left, scale = (width - kept) // 2, min(1.0, picture.most_px / height)
    size = max(1, round(kept * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels[:, left : left + kept], size, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return encoded.tobytes()
