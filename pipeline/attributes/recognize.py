"""Recognizes attributes in the best crops of each new tracklet, where the home has a model for them.

It changes no decision: identities are found by their features alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.quality import decode
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from reid_core.attributes import AttributeRecognizer, PersonAttributes
from schemas.attributes import NAMES
from schemas.errors import PictureError, StoreError

#: Crops of a tracklet that are looked at, those of the best quality.
MOST_CROPS = 3
#: Tracklets of one transaction.
BATCH = 200

_TRACKLETS = text(
    "SELECT i.id FROM identity i WHERE i.unit = :camera AND i.level = 'camera' AND NOT i.retired AND i.id > coalesce(("
    "SELECT p.tracklet FROM attributes_progress p WHERE p.camera = :camera AND p.model = :model), 0) "
    "ORDER BY i.id LIMIT :most"
)
# A tracklet of now may hold crops of an earlier one, which count.
_CROPS = text(
    "SELECT c.id, c.camera, c.captured_at, c.picture FROM ("
    "SELECT m.identity_id, c.*, a.crop_id IS NOT NULL AS is_done, row_number() OVER ("
    "PARTITION BY m.identity_id ORDER BY a.crop_id IS NULL, c.quality DESC, c.key) AS place "
    "FROM identity_member m JOIN crop c ON c.id = m.crop_id LEFT JOIN crop_attributes a ON a.crop_id = c.id "
    "WHERE m.identity_id = ANY(:tracklets) AND c.picture_gone_at IS NULL AND c.withdrawn_at IS NULL) AS c "
    "WHERE c.place <= :most AND NOT c.is_done ORDER BY c.id"
)
_COLUMNS = {name: name.replace(" ", "_") for name in NAMES}
_WRITE = text(
    f"INSERT INTO crop_attributes (crop_id, model, {', '.join(_COLUMNS.values())}, top, bottom) "  # nosec B608
    f"SELECT c.id, :model, {', '.join(f':{column}' for column in _COLUMNS.values())}, :top, :bottom FROM crop c "
    "WHERE c.id = :crop AND c.withdrawn_at IS NULL FOR SHARE ON CONFLICT DO NOTHING"
)
_DONE = text(
    "INSERT INTO attributes_progress (camera, model, tracklet) VALUES (:camera, :model, :tracklet) "
    "ON CONFLICT (camera, model) DO UPDATE SET tracklet = greatest(attributes_progress.tracklet, excluded.tracklet)"
)


def recognize_camera(
    store: Store,
    crops: CropStore,
    recognizer: AttributeRecognizer,
    camera: str,
    on_wait: Callable[[str], None] | None = None,
    is_enough: Callable[[], bool] = lambda: False,
) -> int:
    """Recognizes attributes in the tracklets of a camera that are new since the last call; returns the crops looked at.

    At most MOST_CROPS of each tracklet are looked at, and no crop twice. It stops after a batch where `is_enough`;
    then, or killed anywhere, the next call goes on. Raises CoreError.
    """
    looked_at = 0
    while rows := _next(store, camera, recognizer.name, on_wait):
        found = _recognize(crops, recognizer, rows.crops)
        with store.begin() as connection:
            for row, attributes in found:
                connection.execute(_WRITE, {"crop": row.id, "model": recognizer.name, **_row(attributes)})
            connection.execute(_DONE, {"camera": camera, "model": recognizer.name, "tracklet": rows.last})
        looked_at += len(found)
        if is_enough():
            break
    return looked_at


@dataclass(frozen=True)
class _Batch:
    last: int  # the last tracklet's id
    crops: Sequence[Row[Any]]


def _next(store: Store, camera: str, model: str, on_wait: Callable[[str], None] | None) -> _Batch | None:
    """The crops of the next tracklets that are to be looked at; None if there are no more tracklets."""
    with unit_lock(store, camera, on_wait), store.begin() as connection:  # nobody writes tracklets: all ids are there
        at = {"camera": camera, "model": model, "most": BATCH}
        tracklets = connection.execute(_TRACKLETS, at).scalars().all()
        if not tracklets:
            return None
        crops = connection.execute(_CROPS, {"tracklets": list(tracklets), "most": MOST_CROPS}).all()
        return _Batch(tracklets[-1], crops)


def _recognize(
    crops: CropStore, recognizer: AttributeRecognizer, rows: Sequence[Row[Any]]
) -> list[tuple[Row[Any], PersonAttributes]]:
    """The attributes of each crop whose picture can be read; the next resolve tells of the others."""
    whole, pictures = [], []
    for row in rows:
        try:
            picture = decode(crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture)))
        except (StoreError, PictureError):
            continue
        whole.append(row)
        pictures.append(picture)
    return list(zip(whole, recognizer.recognize(pictures), strict=True))


def _row(attributes: PersonAttributes) -> dict[str, Any]:
    probabilities = {column: attributes.probabilities[name] for name, column in _COLUMNS.items()}
    return {**probabilities, "top": attributes.top, "bottom": attributes.bottom}
