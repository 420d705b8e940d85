"""Computes and stores features of crops: once for each (crop, model), each batch in transactions of its own.

A feature space has no features of its own: its base's are stored.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, TextClause, text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.crops.quality import decode
from pipeline.registry import ModelRow
from pipeline.resolve.pictures import mark_gone, take_back
from pipeline.store import Store
from pipeline.store.copy import copy_in
from pipeline.store.locks import unit_lock
from pipeline.store.partitions import ensure_partitions
from reid_core.datasets.dataset import in_threads
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore
from schemas.errors import PictureError, StoreError

#: Crops of one transaction; a kill loses at most the work on these.
BATCH = 512

_MISSING = (
    "c.picture_gone_at IS NULL AND c.withdrawn_at IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM crop_embedding e WHERE e.model_id = :model AND e.crop_id = c.id "
    "AND e.day = c.day)"
)
_COLUMNS = "c.id, c.camera, c.captured_at, c.picture, c.day"
_OF_CAMERA = text(
    f"SELECT {_COLUMNS} FROM crop c WHERE c.camera = :camera AND {_MISSING} ORDER BY c.captured_at, c.key LIMIT :most"
)
_COUNT_OF_CAMERA = text(f"SELECT count(*) FROM crop c WHERE c.camera = :camera AND {_MISSING}")
_OF_CITY = text(
    f"SELECT {_COLUMNS} FROM crop c WHERE c.id > :after AND {_MISSING} AND (NOT :resolved OR EXISTS "
    "(SELECT 1 FROM identity_member m WHERE m.crop_id = c.id)) ORDER BY c.id LIMIT :most"
)


def embed_camera(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    camera: str,
    progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> int:
    """Embeds all crops of `camera` that have no feature of `model`; returns their number.

    Crops whose picture is missing or damaged are marked as gone; those whose picture is there again take part again.
    One process at a time embeds a camera. `on_wait`: a line that names that process, while this one waits. `progress`:
    crops done, crops in all, after each batch.
    """
    embedded = done = total = 0
    with unit_lock(store, camera, on_wait):
        take_back(store, crops, camera)
        while missing := _read(store, _OF_CAMERA, model, camera=camera):
            if progress is not None and not total:
                total = _count(store, model, camera)
            embedded += _embed(store, core, crops, model, camera, missing)
            done += len(missing)
            if progress is not None:
                progress(done, max(done, total))  # crops that arrive meanwhile are embedded too
    return embedded


def embed_city(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    progress: Callable[[int], None] | None = None,
    *,
    resolved: bool = False,
) -> int:
    """Embeds all crops of the city that have no feature of `model`, or only those in tracklets (`resolved`).

    Returns their number. `progress`: the size of each batch. Takes no lock on units, so that ingest and resolve go on;
    the caller sees to it that one process at a time does this for a model.
    """
    total = after = 0
    while missing := _read(store, _OF_CITY, model, after=after, resolved=resolved):
        after = missing[-1].id
        total += _embed(store, core, crops, model, None, missing)
        if progress is not None:
            progress(len(missing))
    return total


def missing_crops(store: Store, model: ModelRow) -> Iterator[Sequence[Row[Any]]]:
    """Batches of rows (id, camera, captured_at, picture, day) of the crops that have no feature of `model`."""
    after = 0
    while missing := _read(store, _OF_CITY, model, after=after, resolved=False):
        after = missing[-1].id
        yield missing


def any_missing(connection: Connection, model: ModelRow, cameras: Sequence[str]) -> bool:
    """Whether a crop of one of the cameras has no feature of `model`."""
    query = text(f"SELECT EXISTS (SELECT FROM crop c WHERE c.camera = ANY(:cameras) AND {_MISSING})")
    return bool(connection.execute(query, {"model": model.features_id, "cameras": list(cameras)}).scalar_one())


def _read(store: Store, query: TextClause, model: ModelRow, **parameters: str | int | bool) -> Sequence[Row[Any]]:
    with store.begin() as connection:
        return connection.execute(query, {"model": model.features_id, "most": BATCH, **parameters}).all()


def _count(store: Store, model: ModelRow, camera: str) -> int:
    with store.begin() as connection:
        return int(connection.execute(_COUNT_OF_CAMERA, {"model": model.features_id, "camera": camera}).scalar_one())


# Waits for an undo that withdraws some of them; one that comes later waits for this transaction.
_STILL_THERE = text("SELECT id FROM crop WHERE id = ANY(:ids) AND withdrawn_at IS NULL FOR SHARE")


def _embed(
    store: Store, core: ReIDCore, crops: CropStore, model: ModelRow, unit: str | None, missing: Sequence[Row[Any]]
) -> int:
    """Embeds crops (rows of missing_crops) and returns how many; those without a usable picture are marked as gone."""

    def read(row: Row[Any]) -> NDArray[np.uint8] | str:
        try:
            data = crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
            return prepare(decode(data), core.card.input)
        except (StoreError, PictureError) as error:
            return str(error)

    with in_threads(read, missing) as prepared:
        found = list(zip(missing, prepared, strict=True))
    whole = [(row, picture) for row, picture in found if not isinstance(picture, str)]
    if faults := [(row.id, fault) for row, fault in found if isinstance(fault, str)]:
        mark_gone(store, crops, unit, [id_ for id_, _ in faults], faults[0][1])
    if not whole:
        return 0
    features = core.embed(np.stack([picture for _, picture in whole]))
    with store.begin() as connection:
        ensure_partitions(connection, "crop_embedding", model.features_id, {row.day for row, _ in whole})
    with store.begin() as connection:
        there = set(connection.execute(_STILL_THERE, {"ids": [row.id for row, _ in whole]}).scalars())
        kept = np.array([row.id in there for row, _ in whole])
        rows = [row for row, _ in whole if row.id in there]
        copy_in(
            connection,
            "crop_embedding",
            {
                "model_id": ("int4", np.full(len(rows), model.features_id)),
                "day": ("date", [row.day for row in rows]),
                "crop_id": ("int8", np.array([row.id for row in rows])),
                "v": ("halfvec", features[kept]),
            },
        )
    return len(rows)
