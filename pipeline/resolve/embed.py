"""Features of a camera's new crops: once a (crop, model), in transactions of their own."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Row, TextClause, text

from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import decode
from pipeline.registry import ModelRow
from pipeline.store import Store
from pipeline.store.copy import copy_in
from pipeline.store.locks import unit_lock
from pipeline.store.partitions import ensure_partitions
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore

#: Crops of one transaction; a kill loses at most this much work.
BATCH = 512

_UNKNOWN = (
    "c.picture_gone_at IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM crop_embedding e WHERE e.model_id = :model AND e.crop_id = c.id "
    "AND e.day = (c.captured_at AT TIME ZONE 'UTC')::date)"
)
_COLUMNS = "c.id, c.picture, (c.captured_at AT TIME ZONE 'UTC')::date AS day"
_OF_CAMERA = text(
    f"SELECT {_COLUMNS} FROM crop c WHERE c.camera = :camera AND {_UNKNOWN} ORDER BY c.captured_at, c.key LIMIT :most"
)
_OF_CITY = text(
    f"SELECT {_COLUMNS} FROM crop c WHERE c.id > :after AND {_UNKNOWN} AND (NOT :resolved OR EXISTS "
    "(SELECT 1 FROM identity_member m WHERE m.crop_id = c.id)) ORDER BY c.id LIMIT :most"
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
        while missing := _read(store, _OF_CAMERA, model, camera=camera):
            _embed(store, core, crops, model, missing)
            total += len(missing)
            if progress is not None:
                progress(len(missing))
    return total


def embed_city(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    progress: Callable[[int], None] | None = None,
    *,
    resolved: bool = False,
) -> int:
    """Embeds all crops of the city that `model` has not seen, or those in tracklets alone (`resolved`); how many.

    It waits for nobody: whatever else goes on goes on. One process at a time does a model, which the caller sees to.
    """
    total = after = 0
    while missing := _read(store, _OF_CITY, model, after=after, resolved=resolved):
        after = missing[-1].id
        _embed(store, core, crops, model, missing)
        total += len(missing)
        if progress is not None:
            progress(len(missing))
    return total


def unknown_crops(store: Store, model: ModelRow) -> Iterator[Sequence[Row[Any]]]:
    """Batches of the crops that `model` has not seen: id and picture."""
    after = 0
    while missing := _read(store, _OF_CITY, model, after=after, resolved=False):
        after = missing[-1].id
        yield missing


def _read(store: Store, query: TextClause, model: ModelRow, **of: str | int | bool) -> Sequence[Row[Any]]:
    with store.begin() as connection:
        return connection.execute(query, {"model": model.id, "most": BATCH, **of}).all()


def _embed(store: Store, core: ReIDCore, crops: CropStore, model: ModelRow, missing: Sequence[Row[Any]]) -> None:
    pictures = np.stack([prepare(decode(crops.get(bytes(row.picture))), core.card.input) for row in missing])
    features = core.embed(pictures)
    with store.begin() as connection:
        ensure_partitions(connection, "crop_embedding", model.id, {row.day for row in missing})
    with store.begin() as connection:
        copy_in(
            connection,
            "crop_embedding",
            {
                "model_id": ("int4", np.full(len(missing), model.id)),
                "day": ("date", [row.day for row in missing]),
                "crop_id": ("int8", np.array([row.id for row in missing])),
                "v": ("halfvec", features),
            },
        )
