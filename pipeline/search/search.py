"""search: from one picture to the identities of a unit, ranked, each with its nearest crops.

The request must be written before (request.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.association.log_odds import appearance_log_odds, probability
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, check_model_in_use, model_by_id
from pipeline.resolve.calibrations import current_calibration
from pipeline.search.descent import IN_PERIOD, nearest_crops, times_of
from pipeline.search.nearest import Probe
from pipeline.search.probe import probe_feature
from pipeline.search.request import Hit, write_hits
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.levels import level_of
from schemas.parameters import Period, SearchHit, SearchParameters

#: Opens the core of a registered model.
Cores = Callable[[ModelRow], ReIDCore]

_IDENTITIES = text(
    "SELECT i.id, i.persistent_id, i.first_seen, i.last_seen, i.timed FROM identity_now i "
    f"WHERE i.unit = :unit AND {IN_PERIOD} ORDER BY i.key"
)


def search(
    store: Store, cores: Cores, crops: CropStore, model: ModelRow, request: UUID, parameters: SearchParameters
) -> tuple[SearchHit, ...]:
    """Runs a written request. Returns its hits, at most `parameters.top`, and writes them as its rows.

    A hit is an identity of the unit that was seen in the period. Its distance is the smallest between the probe and its
    prototypes (mean and medoids), symmetric and attended. Its probability comes from the calibration of the unit's
    level, and is None without one. Identities without a prototype of `model` are compared by the earlier model that
    knows them, which the hit names.

    Hits are sorted by probability. Where a hit has none, those of `model` come first, each model's by distance:
    distances of two models cannot be compared.

    Everything is read from one snapshot of the city; raises ModelChanged if `model` is not in use in it. Can be called
    again after a failure.
    """
    period = Period(from_time=parameters.from_time, to_time=parameters.to_time)
    with store.begin() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        check_model_in_use(connection, model)
        rows = connection.execute(_IDENTITIES, {"unit": parameters.unit, **times_of(period)})
        identities = {row.id: row for row in rows}
        found = [
            hit
            for known in _by_model(connection, model, list(identities))
            for hit in _hits(connection, cores(known.model), crops, known, identities, period, parameters)
        ]
        # Sorting is stable, so equal probabilities stay in the order of the distance.
        if all(hit.shown.probability is not None for hit in found):
            found.sort(key=lambda hit: -(hit.shown.probability or 0.0))
        ranked = [hit.with_rank(rank) for rank, hit in enumerate(found[: parameters.top], 1)]
        write_hits(connection, request, ranked)
    return tuple(hit.shown for hit in ranked)


@dataclass(frozen=True)
class _Known:
    """Identities (ids of rows) that are compared by one model."""

    model: ModelRow
    identities: list[int]


_BY_EARLIER_MODEL = text(
    "SELECT DISTINCT ON (i.id) i.id, p.model_id FROM unnest(CAST(:ids AS bigint[])) AS i(id) "
    "JOIN prototype p ON p.identity_id = i.id AND p.ordinal = 0 LEFT JOIN (SELECT model_id, max(id) AS last "
    "FROM model_switch GROUP BY 1) AS s ON s.model_id = p.model_id "
    "WHERE NOT EXISTS (SELECT 1 FROM prototype q WHERE q.model_id = :model AND q.identity_id = i.id) "
    "ORDER BY i.id, s.last DESC NULLS LAST"
)


def _by_model(connection: Connection, model: ModelRow, identities: list[int]) -> list[_Known]:
    """The model in use with the identities that it knows, then earlier models with those that only they know.

    Of several earlier models that know an identity, the one that was in use last compares it.
    """
    rows = connection.execute(_BY_EARLIER_MODEL, {"ids": identities, "model": model.id}).all()
    earlier: dict[int, list[int]] = {}
    for row in rows:
        earlier.setdefault(row.model_id, []).append(row.id)
    unknown = {row.id for row in rows}
    known = _Known(model, [identity for identity in identities if identity not in unknown])
    return [known, *(_Known(model_by_id(connection, other), ids) for other, ids in sorted(earlier.items()))]


def _hits(
    connection: Connection,
    core: ReIDCore,
    crops: CropStore,
    known: _Known,
    identities: Mapping[int, Row[Any]],
    period: Period,
    parameters: SearchParameters,
) -> list[Hit]:
    """The hits of one model, nearest first, at most `parameters.top`."""
    model = known.model
    if not known.identities:
        return []
    probe = Probe(connection, core, model.id, probe_feature(connection, core, crops, model, parameters))
    distance = probe.distances_to_identities(known.identities)
    calibration = current_calibration(connection, model.id, level_of(parameters.unit))
    hits: list[Hit] = []
    for identity in (identities[i] for i in sorted(distance, key=lambda i: distance[i])):
        evidence = nearest_crops(probe, identity, period)
        if not evidence:  # its time span covers the period, but no crop lies in it
            continue
        odds = None if calibration is None else appearance_log_odds(calibration.value.terms, distance[identity.id])
        shown = SearchHit(
            rank=len(hits) + 1,
            identity=identity.persistent_id,
            unit=parameters.unit,
            model=model.name,
            distance=distance[identity.id],
            probability=None if odds is None else probability(odds),
            first_seen=identity.first_seen if identity.timed else None,
            last_seen=identity.last_seen if identity.timed else None,
            crops=evidence,
        )
        hits.append(Hit(identity.id, model.id, shown))
        if len(hits) == parameters.top:
            break
    return hits
