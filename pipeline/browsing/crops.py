"""Pictures of single crops."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from pipeline.ingest.features import SOURCE
from pipeline.report.thumbnails import Picture

_CROPS = text(
    "SELECT encode(key, 'hex') AS key, camera, picture, width_px, height_px, captured_at, quality FROM crop "
    "WHERE key = ANY(:keys) AND source <> :without AND withdrawn_at IS NULL"
)


def pictures_of_crops(connection: Connection, keys: Iterable[str]) -> dict[str, Picture]:
    """The picture of each crop (key in hex) that has one and may be seen."""
    asked = {"keys": [bytes.fromhex(key) for key in sorted(set(keys))], "without": SOURCE}
    return {
        row.key: Picture(row.camera, bytes(row.picture), row.width_px, row.height_px, row.captured_at, row.quality)
        for row in connection.execute(_CROPS, asked)
    }
