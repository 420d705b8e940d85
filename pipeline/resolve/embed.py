"""Features of a camera's new crops: once a (crop, model), in transactions of their own."""

from collections.abc import Callable

import numpy as np
from sqlalchemy import text

from pipeline.crops import CropStore
from pipeline.models import ModelRow
from pipeline.pictures import decode
from pipeline.store import Store
from pipeline.store.copy import copy_in
from pipeline.store.leaves import ensure_leaves
from pipeline.store.locks import unit_lock
from reid_core.core import ReIDCore
from reid_core.pictures import prepare

#: Crops of one transaction; a kill loses at most this much work.
BATCH = 512

_MISSING = text(
    "SELECT c.id, c.picture, (c.captured_at AT TIME ZONE 'UTC')::date AS day FROM crop c WHERE c.camera = :camera "
    "AND NOT EXISTS (SELECT 1 FROM crop_embedding e WHERE e.model_id = :model AND e.crop_id = c.id) "
    "ORDER BY c.captured_at, c.key LIMIT :most"
)


def embed_camera(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    camera: str,
    progress: Callable[[int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> int:
    """Embeds all crops of `camera` that `model` has not seen; how many.

    One process at a time does a camera: `on_wait` is told for whom this one waits. `progress` gets each batch's size.
    """
    total = 0
    with unit_lock(store, camera, on_wait):
        while (done := _embed_batch(store, core, crops, model, camera)) > 0:
            total += done
            if progress is not None:
                progress(done)
    return total


def _embed_batch(store: Store, core: ReIDCore, crops: CropStore, model: ModelRow, camera: str) -> int:
    """Embeds the first of the crops that are missing; how many, 0 when none is."""
    with store.begin() as connection:
        missing = connection.execute(_MISSING, {"camera": camera, "model": model.id, "most": BATCH}).all()
    if not missing:
        return 0
    pictures = np.stack([prepare(decode(crops.get(bytes(row.picture))), core.card.input) for row in missing])
    features = core.embed(pictures)
    with store.begin() as connection:
        ensure_leaves(connection, "crop_embedding", model.id, {row.day for row in missing})
    with store.begin() as connection:
        return copy_in(
            connection,
            "crop_embedding",
            {
                "model_id": ("int4", np.full(len(missing), model.id)),
                "day": ("date", [row.day for row in missing]),
                "crop_id": ("int8", np.array([row.id for row in missing])),
                "v": ("halfvec", features),
            },
        )
