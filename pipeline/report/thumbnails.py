"""Crops as thumbnails: which ones are shown, and the files beside the pages."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import cv2
from sqlalchemy import Connection, text

from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import decode
from pipeline.ingest.features import SOURCE
from schemas.errors import PictureError, StoreError

#: Higher than any is shown, so that it stays sharp on fine screens.
HEIGHT_PX = 160
_WIDEST = 1.2  # width to height
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A stored crop's picture."""

    sha256: bytes
    width_px: int
    height_px: int
    taken: datetime
    quality: float

    @property
    def name(self) -> str:
        return f"{self.sha256.hex()}.jpg"

    def width_at(self, height: float) -> float:
        """Its width when shown at a height; very wide ones are cut at the sides."""
        return height * min(self.width_px / self.height_px, _WIDEST)


# The best crop of each third of a tracklet, so that several show a person from several sides.
_PICTURES = text(
    "SELECT DISTINCT ON (tracklet, third) * FROM (SELECT m.identity_id AS tracklet, c.picture, c.width_px, "
    "  c.height_px, c.captured_at, c.quality, c.key, "
    "  ntile(3) OVER (PARTITION BY m.identity_id ORDER BY c.captured_at, c.key) AS third "
    "  FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "  WHERE m.identity_id = ANY(:ids) AND c.source <> :without) AS parts "
    "ORDER BY tracklet, third, quality DESC, key"
)


def pictures_of(connection: Connection, tracklets: Iterable[int]) -> dict[int, list[Picture]]:
    """Up to three pictures of each tracklet, in time order; crops that came as features have none."""
    found: dict[int, list[Picture]] = {}
    for row in connection.execute(_PICTURES, {"ids": sorted(set(tracklets)), "without": SOURCE}):
        picture = Picture(bytes(row.picture), row.width_px, row.height_px, row.captured_at, row.quality)
        found.setdefault(row.tracklet, []).append(picture)
    return found


def best(pictures: Sequence[Picture]) -> Picture:
    return max(pictures, key=lambda picture: (picture.quality, picture.sha256))


def write_thumbnails(
    crops: CropStore, wanted: Iterable[Picture], folder: Path, progress: Callable[[int, int], None] | None = None
) -> set[str]:
    """Writes each picture once into `folder` under its name, one in memory at a time.

    Returns the names that could not be written, because the crop store no longer has the picture whole.
    """
    pictures = sorted({picture.name: picture for picture in wanted}.items())
    missing = set()
    for done, (name, picture) in enumerate(pictures, 1):
        try:
            data = _thumbnail(crops.get(picture.sha256))
        except (StoreError, PictureError):
            missing.add(name)
        else:
            part = folder / f"{name}.part"
            part.write_bytes(data)
            part.replace(folder / name)
        if progress is not None:
            progress(done, len(pictures))
    return missing


def _thumbnail(data: bytes) -> bytes:
    pixels = decode(data)
    height, width = pixels.shape[:2]
    kept = min(width, round(height * _WIDEST))
    left, shrunk = (width - kept) // 2, min(1.0, HEIGHT_PX / height)
    size = max(1, round(kept * shrunk)), max(1, round(height * shrunk))
    small = cv2.resize(pixels[:, left : left + kept], size, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return encoded.tobytes()
