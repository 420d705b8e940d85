"""Pictures that are missing or damaged in the crop store: their crops are marked as gone, and the rest goes on.

A crop that is gone and has no feature takes no part in decisions. When its picture is there again, the next resolve
embeds it and looks at its window again.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from pipeline.city import watermarks
from pipeline.crops.crop_store import CropStore, Place, place_of_crop
from pipeline.crops.quality import decode
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.errors import PictureError, StoreError

#: Keys of crops that one audit row names.
_NAMED = 20

_GONE = text(
    "SELECT c.id, c.camera, c.captured_at, c.picture FROM crop c WHERE c.picture_gone_at IS NOT NULL "
    "AND c.withdrawn_at IS NULL AND (CAST(:unit AS text) IS NULL OR c.camera = :unit "
    "OR starts_with(c.camera, :unit || '/')) "
    "ORDER BY c.captured_at, c.key"
)
_MARK = text(
    "UPDATE crop SET picture_gone_at = CASE WHEN :gone THEN now() END WHERE id = ANY(:ids) "
    "AND (picture_gone_at IS NOT NULL) <> :gone RETURNING encode(key, 'hex')"
)


def mark_gone(store: Store, crops: CropStore, unit: str | None, ids: Sequence[int], reason: str) -> None:
    """Marks crops as gone, with an audit row. Raises StoreError, with nothing marked, if the whole crop store is away.

    `unit`: where they are, for the audit; None: anywhere. `reason`: what is wrong with the first of them.
    """
    if not crops.is_there():
        raise StoreError(
            f"{crops.files.place} is missing or empty although there are crops; is it on a disk that is not mounted?"
        )
    with store.begin() as connection:
        _mark(store, connection, unit, ids, Action.CROP_LOSE, reason)


def take_back(store: Store, crops: CropStore, unit: str | None = None) -> int:
    """Crops whose picture was gone and is there again take part again; returns their number.

    `unit`: crops at and below it; None: all.

    Their windows are marked, so that the next resolve looks at them.
    """
    with store.begin() as connection:
        gone = connection.execute(_GONE, {"unit": unit}).all()
    back = [row for row in gone if _is_whole(crops, place_of_crop(row.camera, row.captured_at), bytes(row.picture))]
    if not back:
        return 0
    with store.begin() as connection:
        _mark(store, connection, unit, [row.id for row in back], Action.CROP_RETURN, "the pictures are there again")
        crops_back = ((row.camera, row.captured_at) for row in back)
        watermarks.mark_crops(connection, crops_back, store.settings.association.window_s)
    return len(back)


def _mark(
    store: Store, connection: Connection, unit: str | None, ids: Sequence[int], action: Action, reason: str
) -> None:
    parameters = {"gone": action is Action.CROP_LOSE, "ids": list(ids)}
    keys = connection.execute(_MARK, parameters).scalars().all()
    if keys:
        details = {"crops": len(keys), "keys": sorted(keys)[:_NAMED]}
        audit(connection, store.settings.operator, action, unit=unit, reason=reason, details=details)


def _is_whole(crops: CropStore, place: Place, picture: bytes) -> bool:
    try:
        decode(crops.get(place, picture))
    except (StoreError, PictureError):
        return False
    return True
