"""An operator's search: from one picture to the identities of a unit, nearest first, with evidence by lineage.

The search starts at the identities of its unit, compares the probe with their prototypes, and goes down only into
children that are plausible, to the crops. Who asked, why and where is written before it starts.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from pipeline.city import read_city
from pipeline.crops import CropStore
from pipeline.models import ModelRow
from pipeline.pictures import decode
from pipeline.resolve.unit import current_calibration
from pipeline.store import Store
from pipeline.store.copy import copy_out
from reid_core.core import ReIDCore, symmetric_distances
from reid_core.pictures import prepare
from schemas.cards import LevelCalibration, probability
from schemas.city import unknown_unit
from schemas.errors import InputError
from schemas.levels import Level, level_of
from schemas.parameters import CropEvidence, Period, SearchHit, SearchParameters

Floats = NDArray[np.float64]

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


def upload_probe(store: Store, crops: CropStore, data: bytes, operator: str) -> UUID:
    """Keeps an encoded picture to search for; the id to search with. Raises PictureError, HomeError."""
    decode(data)
    picture = crops.put(data)
    with store.begin() as connection:
        probe: UUID = connection.execute(
            text("INSERT INTO probe (picture, uploaded_by) VALUES (:picture, :operator) RETURNING id"),
            {"picture": picture, "operator": operator},
        ).scalar_one()
        _audit(connection, operator, "probe.upload", details={"probe": str(probe), "picture": picture.hex()})
    return probe


def request_search(store: Store, model: ModelRow, parameters: SearchParameters) -> UUID:
    """Writes who searches for whom, where and why, and the audit's row, in one transaction; the request's id.

    Raises CityError and InputError for a unit, crop or probe that is not there; then nothing is written.
    """
    known = {unit.code for unit in read_city(store).units}
    if parameters.unit not in known:
        raise unknown_unit(parameters.unit, known)
    with store.begin() as connection:
        crop_id = None
        if parameters.crop_key is not None:
            crop_id = connection.execute(
                text("SELECT id FROM crop WHERE key = :key"), {"key": bytes.fromhex(parameters.crop_key)}
            ).scalar_one_or_none()
            if crop_id is None:
                raise InputError(f"no crop has the key {parameters.crop_key}; `urban-reid resolve --export` lists keys")
        elif not connection.execute(
            text("SELECT count(*) FROM probe WHERE id = :id"), {"id": parameters.probe_id}
        ).scalar_one():
            raise InputError(f"no probe {parameters.probe_id} was uploaded; `urban-reid search --probe FILE` does it")
        request: UUID = connection.execute(
            text(
                "INSERT INTO search_request (operator, reason, unit, from_time, to_time, crop_id, probe_id, top, "
                "model_id) VALUES (:operator, :reason, :unit, :from_time, :to_time, :crop, :probe, :top, :model) "
                "RETURNING id"
            ),
            {
                "operator": parameters.operator,
                "reason": parameters.reason,
                "unit": parameters.unit,
                "from_time": parameters.from_time,
                "to_time": parameters.to_time,
                "crop": crop_id,
                "probe": parameters.probe_id,
                "top": parameters.top,
                "model": model.id,
            },
        ).scalar_one()
        details = parameters.model_dump(mode="json", include={"crop_key", "probe_id", "from_time", "to_time", "top"})
        _audit(
            connection,
            parameters.operator,
            "search",
            unit=parameters.unit,
            reason=parameters.reason,
            details={"request": str(request)} | details,
        )
    return request


def search(
    store: Store, core: ReIDCore, crops: CropStore, model: ModelRow, request: UUID, parameters: SearchParameters
) -> tuple[SearchHit, ...]:
    """Runs a written request: its hits, nearest first, at most `parameters.top`; they are written as its rows too.

    A hit is an identity of the unit that was seen in the period. Its distance is the smallest between the probe and
    its prototypes (mean and medoids), symmetric and attended; its probability follows from the calibration of the
    unit's level, and is None without one. May be called again after a failure.
    """
    period = Period(from_time=parameters.from_time, to_time=parameters.to_time)
    with store.begin() as connection:
        probe = _probe(connection, core, crops, model, parameters)
        looked = _Look(connection, core, model.id, probe, period)
        roots = connection.execute(_ROOTS, {"unit": parameters.unit, **_times(period)}).all()
        nearest = looked.nearest(_PROTOTYPES, [root.id for root in roots])
        calibration = _calibration(connection, model.id, level_of(parameters.unit))
        hits: list[SearchHit] = []
        found: list[dict[str, Any]] = []
        for root in sorted((root for root in roots if root.id in nearest), key=lambda root: nearest[root.id]):
            evidence = looked.evidence(root)
            if not evidence:  # its span reaches into the period, but nobody saw it then
                continue
            hits.append(
                SearchHit(
                    rank=len(hits) + 1,
                    identity=root.persistent_id,
                    unit=parameters.unit,
                    distance=nearest[root.id],
                    probability=None if calibration is None else probability(calibration.log_odds(nearest[root.id])),
                    first_seen=root.first_seen if root.timed else None,
                    last_seen=root.last_seen if root.timed else None,
                    crops=evidence,
                )
            )
            found.append(hits[-1].model_dump(include={"rank", "distance", "probability"}) | {"identity": root.id})
            if len(hits) == parameters.top:
                break
        _write_hits(connection, request, found)
    return tuple(hits)


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
            if calibration.log_odds(distance[child.id]) >= calibration.review_log_odds
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


def _calibration(connection: Connection, model_id: int, level: Level) -> LevelCalibration | None:
    stored = current_calibration(connection, model_id, level)
    return None if stored is None else stored.value


def _times(period: Period) -> dict[str, datetime | None]:
    return {"from_time": period.from_time, "to_time": period.to_time}


def _write_hits(connection: Connection, request: UUID, found: list[dict[str, Any]]) -> None:
    if found:
        connection.execute(
            text(
                "INSERT INTO search_hit (request_id, rank, identity_id, distance, probability) "
                "VALUES (:request, :rank, :identity, :distance, :probability)"
            ),
            [{"request": request, **hit} for hit in found],
        )
    connection.execute(text("UPDATE search_request SET finished_at = now() WHERE id = :id"), {"id": request})


def _audit(
    connection: Connection,
    actor: str,
    action: str,
    *,
    unit: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any],
) -> None:
    connection.execute(
        text(
            "INSERT INTO audit (actor, action, unit, reason, details) "
            "VALUES (:actor, :action, :unit, :reason, CAST(:details AS jsonb))"
        ),
        {"actor": actor, "action": action, "unit": unit, "reason": reason, "details": json.dumps(details)},
    )
