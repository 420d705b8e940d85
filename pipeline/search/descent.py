"""From an identity down its members to the crops that look most like the probe, through plausible children only."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


def nearest_crops(probe: Probe, identities: Sequence[Row[Any]], period: Period) -> dict[int, tuple[CropEvidence, ...]]:
    """The crops in the period that are nearest to the probe, at most MOST_CROPS of each identity, by its id.

    identities: rows with id and persistent_id, of one level. All are descended at once, with a statement or two for
    each level. Each crop comes with its lineage: the persistent ids from the identity down to the crop's tracklet.
    """
    branches = [_Branch(identity.id, identity.id, (identity.persistent_id,)) for identity in identities]
    while children := _children(probe.connection, branches, period):
        plausible = _plausible(probe, children)
        branches = [
            _Branch(branch.root, child.id, (*branch.lineage, child.persistent_id))
            for branch in branches
            for child in plausible.get(branch.holder, [])
        ]
    found = _by_holder(probe.connection.execute(_CROPS, _held(branches, period)))
    distance = probe.distances_to_crops([crop.id for crops in found.values() for crop in crops])
    near: dict[int, list[CropEvidence]] = {identity.id: [] for identity in identities}
    for branch in branches:
        near[branch.root] += [
            CropEvidence(
                key=crop.key,
                camera=crop.camera,
                time=crop.captured_at if crop.timed else None,
                distance=distance[crop.id],
                lineage=branch.lineage,
            )
            for crop in found.get(branch.holder, [])
            if crop.id in distance
        ]
    return {
        root: tuple(sorted(crops, key=lambda crop: (crop.distance, crop.key))[:MOST_CROPS])
        for root, crops in near.items()
    }


@dataclass(frozen=True)
class _Branch:
    """A way down that was opened: the ids of the identity at its top and of its last, and the lineage between."""

    root: int
    holder: int
    lineage: tuple[UUID, ...]


def _held(branches: Sequence[_Branch], period: Period) -> dict[str, Any]:
    return {"holders": list({branch.holder for branch in branches}), **times_of(period)}


def _by_holder(rows: Iterable[Row[Any]]) -> dict[int, list[Row[Any]]]:
    held: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        held[row.holder].append(row)
    return held


def _children(connection: Connection, branches: Sequence[_Branch], period: Period) -> dict[int, list[Row[Any]]]:
    return _by_holder(connection.execute(_CHILDREN, _held(branches, period)))


def _plausible(probe: Probe, children: Mapping[int, list[Row[Any]]]) -> Mapping[int, list[Row[Any]]]:
    """Of each holder its nearest child, and all children that the probe would at least send to review.

    All children without a calibration of their level.
    """
    level = Level(next(iter(children.values()))[0].level)
    calibration = current_calibration(probe.connection, probe.model.id, level)
    if calibration is None:
        return children
    terms, review_log_odds = calibration.value.terms, calibration.value.review_log_odds
    distance = probe.distances_to_identities([child.id for siblings in children.values() for child in siblings])
    plausible = {}
    for holder, siblings in children.items():
        known = [child for child in siblings if child.id in distance]
        nearest = min(known, key=lambda child: distance[child.id], default=None)
        plausible[holder] = [
            child
            for child in known
            if child is nearest or appearance_log_odds(terms, distance[child.id]) >= review_log_odds
        ]
    return plausible
