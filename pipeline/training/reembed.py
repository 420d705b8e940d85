"""Re-embeds the city with another model: features of all crops, then prototypes of all identities, level by level.

Each batch is a transaction of its own, so an interrupted run continues where it was. Prototypes are made by the same
functions as in a resolve, from the same crops and members in the same order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, text

from pipeline.association.prototypes import Prototypes, prototypes_of_crops, prototypes_of_members
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.registry import ModelRow
from pipeline.resolve.embed import embed_city, missing_crops
from pipeline.resolve.features import read_features
from pipeline.resolve.read import read_prototypes
from pipeline.resolve.write import write_prototypes
from pipeline.store import Store
from pipeline.store.partitions import ensure_partitions
from reid_core.serving.core import ReIDCore
from schemas.levels import UPWARD, Level

#: Identities of one transaction.
BATCH = 512

_NO_PROTOTYPE = (
    "NOT EXISTS (SELECT 1 FROM prototype p WHERE p.model_id = :model AND p.identity_id = i.id "
    "AND p.day = (i.last_seen AT TIME ZONE 'UTC')::date)"
)
_MISSING = text(
    "SELECT i.id, (i.last_seen AT TIME ZONE 'UTC')::date AS day FROM identity i "
    f"WHERE i.level = :level AND NOT i.retired AND i.id > :after AND {_NO_PROTOTYPE} ORDER BY i.id LIMIT :most"
)
_COUNT = text(f"SELECT count(*) FROM identity i WHERE NOT i.retired AND {_NO_PROTOTYPE}")
_COUNT_NOW = text(
    f"SELECT i.level, count(*) AS many FROM identity_now i WHERE {_NO_PROTOTYPE} AND (CAST(:within AS text) IS NULL "
    "OR i.unit = :within OR starts_with(i.unit, :within || '/')) GROUP BY 1"
)
_CROPS = (
    "SELECT m.identity_id, c.quality, e.v, c.camera FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "JOIN crop_embedding e ON e.crop_id = c.id AND e.model_id = :model "
    "AND e.day = c.day "
    "WHERE m.identity_id = ANY(:ids) AND c.withdrawn_at IS NULL ORDER BY m.identity_id, c.captured_at, c.key"
)


@dataclass(frozen=True)
class Reembedded:
    crops: int = 0
    identities: int = 0  # versions

    def __add__(self, other: "Reembedded") -> "Reembedded":
        return Reembedded(self.crops + other.crops, self.identities + other.identities)


def reembed(
    store: Store,
    core: ReIDCore,
    crops: CropStore,
    model: ModelRow,
    progress: Callable[[int, int], None] | None = None,
    *,
    resolved: bool = False,
) -> Reembedded:
    """Embeds all crops without a feature of `model` and makes the prototypes of all identities without one.

    Returns what it did. `resolved`: embeds only crops in tracklets. `progress`: crops and identities done, and in all.
    The crop store must hold every crop's picture (`missing_pictures`), except of those marked as gone. Identities
    without any embedded crop get no prototype.
    """
    done, total = 0, _count(store, model) if progress is not None else 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, max(done, total))

    embedded = embed_city(store, core, crops, model, tell, resolved=resolved)
    return Reembedded(embedded, sum(_fill(store, core, model, level, tell) for level in UPWARD))


def _count(store: Store, model: ModelRow) -> int:
    """Number of crops without a feature and of identities without a prototype of the model."""
    with store.begin() as connection:
        identities = int(connection.execute(_COUNT, {"model": model.id}).scalar_one())
    return identities + sum(len(batch) for batch in missing_crops(store, model))


def missing_pictures(store: Store, crops: CropStore, model: ModelRow) -> list[int]:
    """Ids of crops to embed with `model` whose picture is missing in the crop store although not marked as gone."""
    there = set(crops.files.names())
    return [
        row.id
        for batch in missing_crops(store, model)
        for row in batch
        if there.isdisjoint(crops.names(place_of_crop(row.camera, row.captured_at), bytes(row.picture)))
    ]


def count_unknown(connection: Connection, model_id: int, within: str | None = None) -> dict[Level, int]:
    """Number of current identities without a prototype of the model by level, of a unit and all below it, or of all."""
    rows = connection.execute(_COUNT_NOW, {"model": model_id, "within": within})
    return {Level(row.level): row.many for row in rows}


def _fill(store: Store, core: ReIDCore, model: ModelRow, level: Level, tell: Callable[[int], None]) -> int:
    """Makes the missing prototypes of a level, after the level below. Returns the number of identities that got one."""
    written = after = 0
    while True:
        with store.begin() as connection:
            missing = connection.execute(
                _MISSING, {"model": model.id, "level": level.value, "after": after, "most": BATCH}
            ).all()
        if not missing:
            return written
        after = missing[-1].id
        with store.begin() as connection:
            ensure_partitions(connection, "prototype", model.id, {row.day for row in missing})
        with store.begin() as connection:
            made = _prototypes(connection, core, model, level, missing, store.settings.association.medoids)
            write_prototypes(connection, model.id, made)
        written += len(made)
        tell(len(missing))


_MEMBERS = text(
    "SELECT m.identity_id AS holder, i.id, (i.last_seen AT TIME ZONE 'UTC')::date AS day FROM identity_member m "
    "JOIN identity i ON i.id = m.child_id WHERE m.identity_id = ANY(:holders) ORDER BY m.identity_id, i.key"
)


def _prototypes(
    connection: Connection,
    core: ReIDCore,
    model: ModelRow,
    level: Level,
    missing: Sequence[Row[Any]],
    medoids: int,
) -> list[tuple[int, date, Prototypes]]:
    """(identity's id, day, prototypes) of those `missing` (rows of id and day) with embedded crops or members."""
    day = {int(row.id): row.day for row in missing}
    if level is not Level.CAMERA:
        members: dict[int, list[int]] = {}
        days = set()
        for row in connection.execute(_MEMBERS, {"holders": list(day)}):
            members.setdefault(row.holder, []).append(row.id)
            days.add(row.day)
        vectors = read_prototypes(connection, model.id, [own for its in members.values() for own in its], days)
        known = {holder: [vectors[own] for own in its if own in vectors] for holder, its in members.items()}
        return [(holder, day[holder], prototypes_of_members(its, medoids)) for holder, its in known.items() if its]
    columns = {"identity_id": "int8", "quality": "float4"}
    rows, features = read_features(connection, core, model, _CROPS, {"ids": list(day)}, columns)
    owners, quality = np.asarray(rows["identity_id"]), np.asarray(rows["quality"], dtype=np.float64)
    holders, starts, counts = np.unique(owners, return_index=True, return_counts=True)
    return [
        (
            holder,
            day[holder],
            prototypes_of_crops(features[start : start + count], quality[start : start + count], medoids),
        )
        for holder, start, count in zip(holders.tolist(), starts.tolist(), counts.tolist(), strict=True)
    ]
