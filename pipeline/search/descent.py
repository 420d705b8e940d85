"""From an identity down its members to the crops that look most like the probe, through plausible children only."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from pipeline.association.log_odds import appearance_log_odds
from pipeline.resolve.calibrations import current_calibration
from pipeline.resolve.features import read_features
from pipeline.search.narrowing import Narrowing
from pipeline.search.nearest import Probe
from schemas.levels import UPWARD, Level
from schemas.parameters import CropEvidence, Period
from schemas.times import from_us

#: Crops returned for one identity, the nearest first.
MOST_CROPS = 20

#: Identities whose time span reaches into the period; i is the identity.
IN_PERIOD = (
    "(CAST(:from_time AS timestamptz) IS NULL OR i.timed AND i.last_seen >= :from_time) "
    "AND (CAST(:to_time AS timestamptz) IS NULL OR i.timed AND i.first_seen < :to_time)"
)
_CHILDREN = text(
    "SELECT m.identity_id AS holder, i.id, i.persistent_id FROM identity_member m "
    f"JOIN identity i ON i.id = m.child_id WHERE m.identity_id = ANY(:holders) AND {IN_PERIOD} ORDER BY i.key"
)
_CROP_COUNTS = (
    "c.withdrawn_at IS NULL AND (CAST(:from_time AS timestamptz) IS NULL OR c.timed AND c.captured_at >= :from_time) "
    "AND (CAST(:to_time AS timestamptz) IS NULL OR c.timed AND c.captured_at < :to_time)"
)
_CROPS = (
    "SELECT m.identity_id AS holder, encode(c.key, 'hex') AS key, c.captured_at, c.timed, e.v, c.camera "
    "FROM identity_member m JOIN crop c ON c.id = m.crop_id "
    "JOIN crop_embedding e ON e.crop_id = c.id AND e.day = c.day AND e.model_id = :model "
    f"WHERE m.identity_id = ANY(:holders) AND {_CROP_COUNTS}"
)
_BEST = text(
    "SELECT m.identity_id AS holder, encode(c.key, 'hex') AS key, c.captured_at, c.timed, c.camera "
    f"FROM identity_member m JOIN crop c ON c.id = m.crop_id WHERE m.identity_id = ANY(:holders) AND {_CROP_COUNTS} "
    "ORDER BY c.quality DESC, c.key"
)
_COLUMNS = {"holder": "int8", "key": "text", "captured_at": "timestamptz", "timed": "bool"}
#: Tracklets whose crops are compared at once: bounds the memory.
_TRACKLETS = 512


_ROWS = text("SELECT i.id, i.persistent_id, i.first_seen, i.last_seen, i.timed FROM identity i WHERE i.id = ANY(:ids)")


def rows_of(connection: Connection, ids: Sequence[int]) -> dict[int, Row[Any]]:
    """The identities of these ids, by id, without those that were erased a moment ago."""
    return {row.id: row for row in connection.execute(_ROWS, {"ids": list(ids)})}


def times_of(period: Period) -> dict[str, datetime | None]:
    """The parameters of IN_PERIOD."""
    return {"from_time": period.from_time, "to_time": period.to_time}


def nearest_crops(
    probe: Probe,
    level: Level,
    identities: Sequence[Row[Any]],
    period: Period,
    narrowing: Narrowing | None = None,
) -> dict[int, tuple[CropEvidence, ...]]:
    """The crops in the period that are nearest to the probe, at most MOST_CROPS of each identity, by its id.

    identities: rows with id and persistent_id, of one level. All are descended at once, with a statement or two for
    each level. Each crop comes with its lineage: the persistent ids from the identity down to the crop's tracklet. With
    places or hours all children are opened, because the crops that it shows may be those of one that looks less alike.
    """
    opens_all = narrowing is not None and narrowing.is_of_passages

    def opened(below: Level, children: Mapping[int, list[Row[Any]]]) -> Mapping[int, list[Row[Any]]]:
        return children if opens_all else _plausible(probe, below, children)

    def crops(tracklets: Sequence[_Branch]) -> Mapping[int, list[CropEvidence]]:
        return _crops(probe, tracklets, period)

    def nearest(crops: list[CropEvidence]) -> list[CropEvidence]:
        return sorted(crops, key=lambda crop: (crop.distance, crop.key))

    return _descend(probe.connection, level, identities, period, narrowing, opened, crops, nearest)


def best_crops(
    connection: Connection,
    level: Level,
    identities: Sequence[Row[Any]],
    period: Period,
    narrowing: Narrowing | None = None,
) -> dict[int, tuple[CropEvidence, ...]]:
    """The same where there is no probe: the crops of the best quality, a passage after another, without distances."""

    def crops(tracklets: Sequence[_Branch]) -> Mapping[int, list[CropEvidence]]:
        best: dict[int, list[CropEvidence]] = defaultdict(list)
        for row in connection.execute(_BEST, _held(tracklets, period)):
            time = row.captured_at if row.timed else None
            best[row.holder].append(CropEvidence(key=row.key, camera=row.camera, time=time, distance=None, lineage=()))
        return best

    def in_turn(crops: list[CropEvidence]) -> list[CropEvidence]:
        place: Counter[UUID] = Counter()  # of a crop among those of its tracklet, which come in order
        turns = []
        for crop in crops:
            turns.append(place[crop.lineage[-1]])
            place[crop.lineage[-1]] += 1
        return [crops[at] for at in sorted(range(len(crops)), key=turns.__getitem__)]

    return _descend(connection, level, identities, period, narrowing, lambda _, children: children, crops, in_turn)


def _descend(
    connection: Connection,
    level: Level,
    identities: Sequence[Row[Any]],
    period: Period,
    narrowing: Narrowing | None,
    opened: Callable[[Level, Mapping[int, list[Row[Any]]]], Mapping[int, list[Row[Any]]]],
    crops: Callable[[Sequence["_Branch"]], Mapping[int, list[CropEvidence]]],
    ranked: Callable[[list[CropEvidence]], list[CropEvidence]],
) -> dict[int, tuple[CropEvidence, ...]]:
    """The first crops below each identity, by its id, with their lineage. `opened`: which children are gone down to."""
    branches = [_Branch(identity.id, identity.id, (identity.persistent_id,)) for identity in identities]
    for below in reversed(UPWARD[: UPWARD.index(level)]):
        children = opened(below, _children(connection, branches, period))
        branches = [
            _Branch(branch.root, child.id, (*branch.lineage, child.persistent_id))
            for branch in branches
            for child in children.get(branch.holder, [])
        ]
    found: dict[int, tuple[CropEvidence, ...]] = {identity.id: () for identity in identities}
    for start in range(0, len(branches), _TRACKLETS):
        tracklets = branches[start : start + _TRACKLETS]
        of_tracklet = crops(tracklets)
        for tracklet in tracklets:
            own = (
                crop.model_copy(update={"lineage": tracklet.lineage})
                for crop in of_tracklet.get(tracklet.holder, ())
                if narrowing is None or narrowing.shows(crop.camera, crop.time)
            )
            found[tracklet.root] = tuple(ranked([*found[tracklet.root], *own])[:MOST_CROPS])
    return found


@dataclass(frozen=True)
class _Branch:
    """A way down that was opened: the ids of the identity at its top and of its last, and the lineage between."""

    root: int
    holder: int
    lineage: tuple[UUID, ...]


def _held(branches: Sequence[_Branch], period: Period) -> dict[str, Any]:
    return {"holders": list({branch.holder for branch in branches}), **times_of(period)}


def _children(connection: Connection, branches: Sequence[_Branch], period: Period) -> dict[int, list[Row[Any]]]:
    children: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_CHILDREN, _held(branches, period)):
        children[row.holder].append(row)
    return children


def _crops(probe: Probe, tracklets: Sequence[_Branch], period: Period) -> Mapping[int, list[CropEvidence]]:
    """The crops of each tracklet, by its id, that have a feature, without their lineage."""
    held = _held(tracklets, period)
    rows, features = read_features(probe.connection, probe.core, probe.model, _CROPS, held, _COLUMNS)
    columns = (rows["holder"], rows["key"], rows["camera"], rows["captured_at"], rows["timed"])
    crops: dict[int, list[CropEvidence]] = defaultdict(list)
    for holder, key, camera, at, timed, distance in zip(*columns, probe.distances(features), strict=True):
        time = from_us(int(at)) if timed else None
        crops[int(holder)].append(CropEvidence(key=key, camera=camera, time=time, distance=float(distance), lineage=()))
    return crops


def _plausible(probe: Probe, level: Level, children: Mapping[int, list[Row[Any]]]) -> Mapping[int, list[Row[Any]]]:
    """Of each holder its nearest child, and all children that the probe would at least send to review.

    All children without a calibration of their `level`.
    """
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
