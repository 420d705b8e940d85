"""From an identity down its members to the crops that look most like the probe, through plausible children only."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.association.log_odds import appearance_log_odds
from pipeline.resolve.calibrations import current_calibration
from pipeline.search.nearest import Probe
from schemas.levels import Level
from schemas.parameters import CropEvidence, Period

#: Crops returned for one identity, the nearest first.
MOST_CROPS = 20

#: Identities whose time span reaches into the period; i is the identity.
IN_PERIOD = (
    "(CAST(:from_time AS timestamptz) IS NULL OR i.timed AND i.last_seen >= :from_time) "
    "AND (CAST(:to_time AS timestamptz) IS NULL OR i.timed AND i.first_seen < :to_time)"
)
_CHILDREN = text(
    "SELECT m.identity_id AS holder, i.level, i.id, i.persistent_id FROM identity_member m "
    f"JOIN identity i ON i.id = m.child_id WHERE m.identity_id = ANY(:holders) AND {IN_PERIOD} ORDER BY i.key"
)
_CROPS = text(
    "SELECT m.identity_id AS holder, c.id, encode(c.key, 'hex') AS key, c.camera, c.captured_at, c.timed "
    "FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "WHERE m.identity_id = ANY(:holders) AND c.withdrawn_at IS NULL "
    "AND (CAST(:from_time AS timestamptz) IS NULL OR c.timed AND c.captured_at >= :from_time) "
    "AND (CAST(:to_time AS timestamptz) IS NULL OR c.timed AND c.captured_at < :to_time) ORDER BY c.key"
)


def times_of(period: Period) -> dict[str, datetime | None]:
    """The parameters of IN_PERIOD."""
    return {"from_time": period.from_time, "to_time": period.to_time}


def nearest_crops(probe: Probe, identity: Row[Any], period: Period) -> tuple[CropEvidence, ...]:
    """The identity's crops in the period that are nearest to the probe, at most MOST_CROPS.

    Each comes with its lineage: the persistent ids from `identity` (a row with id and persistent_id) down to the crop's
    tracklet.
    """
    lineage: dict[int, tuple[UUID, ...]] = {identity.id: (identity.persistent_id,)}
    opened = [identity.id]
    while children := _children(probe.connection, opened, period):
        plausible = _plausible(probe, children)
        lineage |= {child.id: (*lineage[child.holder], child.persistent_id) for child in plausible}
        opened = [child.id for child in plausible]
    crops = probe.connection.execute(_CROPS, {"holders": opened, **times_of(period)}).all()
    distance = probe.distances_to_crops([crop.id for crop in crops])
    near = sorted((crop for crop in crops if crop.id in distance), key=lambda crop: (distance[crop.id], crop.key))
    return tuple(
        CropEvidence(
            key=crop.key,
            camera=crop.camera,
            time=crop.captured_at if crop.timed else None,
            distance=distance[crop.id],
            lineage=lineage[crop.holder],
        )
        for crop in near[:MOST_CROPS]
    )


def _children(connection: Connection, holders: Sequence[int], period: Period) -> Sequence[Row[Any]]:
    return connection.execute(_CHILDREN, {"holders": list(holders), **times_of(period)}).all()


def _plausible(probe: Probe, children: Sequence[Row[Any]]) -> list[Row[Any]]:
    """For each holder its nearest child, and all children that the probe would at least send to review.

    All children without a calibration of their level.
    """
    calibration = current_calibration(probe.connection, probe.model.id, Level(children[0].level))
    if calibration is None:
        return list(children)
    terms, review_log_odds = calibration.value.terms, calibration.value.review_log_odds
    distance = probe.distances_to_identities([child.id for child in children])
    by_holder: Mapping[int, list[Row[Any]]] = defaultdict(list)
    for child in children:
        if child.id in distance:
            by_holder[child.holder].append(child)
    return [
        child
        for siblings in by_holder.values()
        for child in siblings
        if appearance_log_odds(terms, distance[child.id]) >= review_log_odds
        or child is min(siblings, key=lambda sibling: distance[sibling.id])
    ]
