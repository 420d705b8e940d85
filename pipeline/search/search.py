"""An operator's search: from one picture to the identities of a unit, nearest first, with evidence by lineage.

The search starts at the identities of its unit, compares the probe with their prototypes, and goes down only into
children that are plausible, to the crops. Who asked, why and where is written before it starts (search_request.py).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Row, text

from pipeline.association.log_odds import appearance_log_odds
from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import decode
from pipeline.registry import ModelRow, check_model_in_use, model_by_id
from pipeline.resolve.calibrations import current_calibration
from pipeline.store import Store
from pipeline.store.copy import copy_out
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore, symmetric_distances
from schemas.arrays import Floats
from schemas.calibration import LevelCalibration
from schemas.cards import probability
from schemas.levels import Level, level_of
from schemas.parameters import CropEvidence, Period, SearchHit, SearchParameters

#: The core of a registered model.
Cores = Callable[[ModelRow], ReIDCore]

#: Crops shown for one hit, the nearest first.
EVIDENCE = 20
#: Vectors compared with the probe at once, so that memory does not grow with the history.
_BLOCK = 4096

_IN_PERIOD = (
    "(CAST(:from_time AS timestamptz) IS NULL OR i.timed AND i.last_seen >= :from_time) "
    "AND (CAST(:to_time AS timestamptz) IS NULL OR i.timed AND i.first_seen < :to_time)"
)
_IDENTITY = "i.id, i.persistent_id, i.first_seen, i.last_seen, i.timed"
_ROOTS = text(f"SELECT {_IDENTITY} FROM identity_now i WHERE i.unit = :unit AND {_IN_PERIOD} ORDER BY i.key")
_CHILDREN = text(
    f"SELECT m.identity_id AS holder, i.level, {_IDENTITY} FROM identity_member m JOIN identity i ON i.id = m.child_id "
    f"WHERE m.identity_id = ANY(:holders) AND {_IN_PERIOD} ORDER BY i.key"
)
_CROPS = text(
    "SELECT m.identity_id AS holder, i.id, encode(i.key, 'hex') AS key, i.camera, i.captured_at, i.timed "
    "FROM identity_member m JOIN crop i ON i.id = m.crop_id WHERE m.identity_id = ANY(:holders) "
    "AND (CAST(:from_time AS timestamptz) IS NULL OR i.timed AND i.captured_at >= :from_time) "
    "AND (CAST(:to_time AS timestamptz) IS NULL OR i.timed AND i.captured_at < :to_time) ORDER BY i.key"
)
_PROTOTYPES = "SELECT identity_id AS id, v FROM prototype WHERE model_id = :model AND identity_id = ANY(:ids)"
_EMBEDDINGS = "SELECT crop_id AS id, v FROM crop_embedding WHERE model_id = :model AND crop_id = ANY(:ids)"


def search(
    store: Store, cores: Cores, crops: CropStore, model: ModelRow, request: UUID, parameters: SearchParameters
) -> tuple[SearchHit, ...]:
    """Runs a written request: its hits, the likeliest first, at most `parameters.top`; they are written as its rows.

    A hit is an identity of the unit that was seen in the period. Its distance is the smallest between the probe and
    its prototypes (mean and medoids), symmetric and attended; its probability follows from the calibration of the
    unit's level, and is None without one. Identities that `model` does not know, since their pictures were gone when it
    came into use, are found by the earlier model that knows them, which the hit names. Distances of two models are
    never compared: such hits take their place by probability, and stand last where a model has none.

    Everything is read from one state of the city, in which `model` is in use; else ModelChanged is raised. May be
    called again after a failure.
    """
    period = Period(from_time=parameters.from_time, to_time=parameters.to_time)
    with store.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        check_model_in_use(connection, model)
        roots = {row.id: row for row in connection.execute(_ROOTS, {"unit": parameters.unit, **_times(period)})}
        found = [
            hit
            for known in _models_of(connection, model, list(roots))
            for hit in _hits(connection, cores(known.model), crops, known, roots, period, parameters)
        ]
        # Sorting is stable: within a model the order stays that of the distance.
        if all(hit.probability is not None for _, _, hit in found):
            found.sort(key=lambda hit: -(hit[2].probability or 0.0))
        found = [
            (root, model_id, hit.model_copy(update={"rank": rank}))
            for rank, (root, model_id, hit) in enumerate(found[: parameters.top], 1)
        ]
        _write_hits(connection, request, found)
    return tuple(hit for _, _, hit in found)


@dataclass(frozen=True)
class _Known:
    """The roots that are found by one model."""

    model: ModelRow
    roots: list[int]


_UNKNOWN = text(
    "SELECT DISTINCT ON (i.id) i.id, p.model_id FROM unnest(CAST(:ids AS bigint[])) AS i(id) "
    "JOIN prototype p ON p.identity_id = i.id AND p.ordinal = 0 LEFT JOIN (SELECT model_id, max(id) AS last "
    "FROM model_switch GROUP BY 1) AS s ON s.model_id = p.model_id "
    "WHERE NOT EXISTS (SELECT 1 FROM prototype q WHERE q.model_id = :model AND q.identity_id = i.id) "
    "ORDER BY i.id, s.last DESC NULLS LAST"
)


def _models_of(connection: Connection, model: ModelRow, roots: list[int]) -> list[_Known]:
    """The model in use with the roots that it knows first, then the earlier ones with those that only they know.

    Of several earlier models the one that was in use last.
    """
    rows = connection.execute(_UNKNOWN, {"ids": roots, "model": model.id}).all()
    others: dict[int, list[int]] = {}
    for row in rows:
        others.setdefault(row.model_id, []).append(row.id)
    elsewhere = {row.id for row in rows}
    here = _Known(model, [root for root in roots if root not in elsewhere])
    return [here, *(_Known(model_by_id(connection, other), ids) for other, ids in sorted(others.items()))]


def _hits(
    connection: Connection,
    core: ReIDCore,
    crops: CropStore,
    known: _Known,
    roots: Mapping[int, Row[Any]],
    period: Period,
    parameters: SearchParameters,
) -> list[tuple[int, int, SearchHit]]:
    """What one model finds, nearest first: (identity's row, model's row, hit)."""
    model = known.model
    if not known.roots:
        return []
    looked = _Look(connection, core, model.id, _probe(connection, core, crops, model, parameters), period)
    nearest = looked.nearest(_PROTOTYPES, known.roots)
    calibration = _calibration(connection, model.id, level_of(parameters.unit))
    hits: list[tuple[int, int, SearchHit]] = []
    for root in (roots[i] for i in sorted(nearest, key=lambda i: nearest[i])):
        evidence = looked.evidence(root)
        if not evidence:  # its span reaches into the period, but nobody saw it then
            continue
        hit = SearchHit(
            rank=len(hits) + 1,
            identity=root.persistent_id,
            unit=parameters.unit,
            model=model.name,
            distance=nearest[root.id],
            probability=None
            if calibration is None
            else probability(appearance_log_odds(calibration.terms, nearest[root.id])),
            first_seen=root.first_seen if root.timed else None,
            last_seen=root.last_seen if root.timed else None,
            crops=evidence,
        )
        hits.append((root.id, model.id, hit))
        if len(hits) == parameters.top:
            break
    return hits


@dataclass(frozen=True)
class _Look:
    """One probe, compared with whatever lies below the hits."""

    connection: Connection
    core: ReIDCore
    model_id: int
    probe: Floats  # (D,)
    period: Period

    def nearest(self, query: str, ids: Sequence[int]) -> dict[int, float]:
        """The smallest distance between the probe and the vectors of each id; ids without a vector are left out."""
        if not ids:
            return {}
        rows = copy_out(
            self.connection, query, {"model": self.model_id, "ids": list(ids)}, {"id": "int8", "v": "halfvec"}
        )
        owners = [int(i) for i in rows["id"]]
        found: dict[int, float] = {}
        for start in range(0, len(owners), _BLOCK):
            vectors = np.asarray(rows["v"][start : start + _BLOCK], dtype=np.float64)
            probes = np.ascontiguousarray(np.broadcast_to(self.probe, vectors.shape))
            distances = symmetric_distances(self.core, probes, vectors).tolist()
            for i, distance in zip(owners[start : start + _BLOCK], distances, strict=True):
                found[i] = min(distance, found.get(i, distance))
        return found

    def evidence(self, root: Row[Any]) -> tuple[CropEvidence, ...]:
        """The nearest crops of the hit, each with the persistent ids from the hit down to its tracklet."""
        lineage: dict[int, tuple[UUID, ...]] = {root.id: (root.persistent_id,)}
        opened = [root.id]
        while children := self._children(opened):
            plausible = self._plausible(children)
            lineage |= {child.id: (*lineage[child.holder], child.persistent_id) for child in plausible}
            opened = [child.id for child in plausible]
        crops = self.connection.execute(_CROPS, {"holders": opened, **_times(self.period)}).all()
        distance = self.nearest(_EMBEDDINGS, [crop.id for crop in crops])
        near = sorted((crop for crop in crops if crop.id in distance), key=lambda crop: (distance[crop.id], crop.key))
        return tuple(
            CropEvidence(
                key=crop.key,
                camera=crop.camera,
                time=crop.captured_at if crop.timed else None,
                distance=distance[crop.id],
                lineage=lineage[crop.holder],
            )
            for crop in near[:EVIDENCE]
        )

    def _children(self, holders: Sequence[int]) -> Sequence[Row[Any]]:
        return self.connection.execute(_CHILDREN, {"holders": list(holders), **_times(self.period)}).all()

    def _plausible(self, children: Sequence[Row[Any]]) -> list[Row[Any]]:
        """Of each holder the nearest child, and those that would at least go to review; all without a calibration."""
        calibration = _calibration(self.connection, self.model_id, Level(children[0].level))
        if calibration is None:
            return list(children)
        distance = self.nearest(_PROTOTYPES, [child.id for child in children])
        siblings: Mapping[int, list[Row[Any]]] = defaultdict(list)
        for child in children:
            if child.id in distance:
                siblings[child.holder].append(child)
        return [
            child
            for those in siblings.values()
            for child in those
            if appearance_log_odds(calibration.terms, distance[child.id]) >= calibration.review_log_odds
            or child is min(those, key=lambda sibling: distance[sibling.id])
        ]


def _probe(
    connection: Connection, core: ReIDCore, crops: CropStore, model: ModelRow, parameters: SearchParameters
) -> Floats:
    """The probe's feature, float64 (D,), as the store would hold it."""
    if parameters.crop_key is not None:
        key = bytes.fromhex(parameters.crop_key)
        crop = connection.execute(text("SELECT id, picture FROM crop WHERE key = :key"), {"key": key}).one()
        stored = copy_out(
            connection, _EMBEDDINGS, {"model": model.id, "ids": [crop.id]}, {"id": "int8", "v": "halfvec"}
        )
        if len(stored["id"]):
            return np.asarray(stored["v"][0], dtype=np.float64)
        picture = crop.picture
    else:
        picture = connection.execute(
            text("SELECT picture FROM probe WHERE id = :id"), {"id": parameters.probe_id}
        ).scalar_one()
    prepared = prepare(decode(crops.get(bytes(picture))), core.card.input)
    feature: Floats = core.embed(prepared[None])[0].astype(np.float16).astype(np.float64)
    return feature


def _probability(calibration: LevelCalibration, distance: float) -> float:
    return probability(appearance_log_odds(calibration.terms, distance))


def _calibration(connection: Connection, model_id: int, level: Level) -> LevelCalibration | None:
    stored = current_calibration(connection, model_id, level)
    return None if stored is None else stored.value


def _times(period: Period) -> dict[str, datetime | None]:
    return {"from_time": period.from_time, "to_time": period.to_time}


def _write_hits(connection: Connection, request: UUID, found: Sequence[tuple[int, int, SearchHit]]) -> None:
    if found:
        connection.execute(
            text(
                "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance, probability) "
                "VALUES (:request, :rank, :identity, :model, :distance, :probability)"
            ),
            [
                {
                    "request": request,
                    "identity": identity,
                    "model": model_id,
                    **hit.model_dump(include={"rank", "distance", "probability"}),
                }
                for identity, model_id, hit in found
            ],
        )
    connection.execute(text("UPDATE search_request SET finished_at = now() WHERE id = :id"), {"id": request})
