"""Against the truth, where it is known: a unit's tracklets with their persons, and how well each level groups them.

Counted within each unit of a level, and summed. Pairs are pairs of tracklets; IDF1 counts crops.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from pipeline.accuracy.baselines import Cut, nearest_neighbor, untimed
from pipeline.accuracy.metrics import agreement, churn, commonest, episodes, pairwise
from pipeline.store import Store
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from schemas.arrays import Bools, Floats, Ints
from schemas.levels import UPWARD, Level, level_of


@dataclass(frozen=True)
class Labeled:
    """A unit's tracklets with known truth, by key, and whom each level takes them for."""

    levels: tuple[Level, ...]  # above the camera, up to the unit's own
    key: list[bytes]  # (n,) ascending
    cameras: tuple[str, ...]  # the unit's, by code
    camera: Ints  # (n,) index into `cameras`
    start_us: Ints  # (n,) microseconds UTC
    end_us: Ints  # (n,)
    timed: Bools  # (n,)
    crops: Ints  # (n,)
    people: tuple[str, ...]  # by name
    truth: Ints  # (n,) index into `people`
    mean: Floats  # (n, D) quality-weighted mean feature
    horizon_us: Mapping[Level, int]  # how far back each level looks
    #: (n,) the number of its identity; a tracklet that the level does not hold is alone, with a number of its own
    identity: Mapping[Level, Ints]
    persistent_id: Mapping[Level, np.ndarray]  # (n,) V16: its identity's persistent id, all zero where there is none

    def unit(self, level: Level) -> Ints:
        """(n,) The number of the unit of `level` in which each tracklet was seen."""
        segments = {Level.CAMERA: 4, Level.BUILDING: 3, Level.STREET: 2, Level.DISTRICT: 1}[level]
        codes = ["/".join(code.split("/")[:segments]) for code in self.cameras]
        numbers: Ints = np.unique(codes, return_inverse=True)[1] if codes else np.empty(0, np.int64)
        return numbers[self.camera]

    def of_task(self, level: Level, groups: Ints) -> Ints:
        """(n,) Groups, or people, as the task of `level` has them: whoever comes back after the level's horizon is to
        be found again a level higher, not here. Untimed tracklets stay together.
        """
        start, end = (
            np.where(self.timed, times, self.start_us.min(initial=0)) for times in (self.start_us, self.end_us)
        )
        return episodes(groups, self.unit(level), start, end, self.horizon_us[level])


@dataclass(frozen=True)
class Said:
    """What the labels say of tracklets: k times that so many crops of one are of a person."""

    tracklet: Ints  # (k,) ids, those of others too
    person: Ints  # (k,) index into `people`
    crops: Ints  # (k,)
    people: tuple[str, ...]  # by name


#: A query of the codes of a unit and all below it that are of one level.
UNITS = (
    "SELECT code FROM urban_unit WHERE level = CAST(:level AS unit_level) "
    "AND (code = :unit OR starts_with(code, :unit || '/'))"
)
# The codes are given as a list, which reaches into the view; a join would have it sort all identities of the city.
_TRACKLETS = (
    "SELECT t.id, t.key, CAST(c.number - 1 AS int4), t.crops, t.timed, t.first_seen, t.last_seen, "
    "uuid_send(t.persistent_id), p.v FROM identity_now t "
    "JOIN unnest(CAST(:units AS text[])) WITH ORDINALITY AS c (code, number) ON c.code = t.unit "
    "JOIN prototype p ON p.identity_id = t.id AND p.ordinal = 0 AND p.model_id = :model "
    "WHERE t.unit = ANY(CAST(:units AS text[])) ORDER BY t.key"
)
_HOLDERS = (
    "SELECT n.id, below.id, uuid_send(n.persistent_id) FROM identity_now n "
    "CROSS JOIN unnest(n.tracklets) AS below(id) WHERE n.unit = ANY(CAST(:units AS text[]))"
)
_TRUTHS = (
    "SELECT m.identity_id, t.truth, CAST(count(*) AS int4) FROM crop c JOIN crop_truth t ON t.crop_id = c.id "
    "JOIN identity_member m ON m.crop_id = c.id WHERE c.camera = ANY(CAST(:units AS text[])) GROUP BY 1, 2"
)


def labeled_tracklets(
    store: Store, unit: str, model_id: int, said: Callable[[Connection], Said] | None = None
) -> Labeled:
    """Tracklets of the unit and all below it whose crops carry a truth (the commonest of theirs, the first by name).

    `said` gives the truth; it is the one that came with the crops unless given.
    """
    with store.begin() as connection:
        units = {level: _units(connection, unit, level) for level in UPWARD}
        at = {"units": units[Level.CAMERA], "model": model_id}
        kinds = {"id": "int8", "key": "bytea", "camera": "int4", "crops": "int4", "timed": "bool"}
        times = {"start": "timestamptz", "end": "timestamptz", "persistent_id": "bytea", "v": "halfvec"}
        rows = copy_out(connection, _TRACKLETS, at, kinds | times)
        labels = said(connection) if said else _stored_truth(connection, units[Level.CAMERA])
        ids = np.asarray(rows["id"])
        row, there = rows_of(ids, labels.tracklet)
        truth = commonest(row[there], labels.person[there], labels.crops[there], len(ids))
        known = np.flatnonzero(truth >= 0)
        identity = {Level.CAMERA: np.arange(len(known))}
        persistent = {Level.CAMERA: uuids(rows["persistent_id"])[known]}
        levels = UPWARD[1 : UPWARD.index(level_of(unit)) + 1]
        for level in levels:
            identity[level], persistent[level] = _held(connection, units[level], ids, known)
    return Labeled(
        levels=levels,
        key=[rows["key"][i] for i in known.tolist()],
        cameras=tuple(units[Level.CAMERA]),
        camera=np.asarray(rows["camera"], dtype=np.int64)[known],
        start_us=np.asarray(rows["start"])[known],
        end_us=np.asarray(rows["end"])[known],
        timed=np.asarray(rows["timed"])[known],
        crops=np.asarray(rows["crops"], dtype=np.int64)[known],
        people=labels.people,
        horizon_us={level: store.settings.association.horizon_s(level) * 1_000_000 for level in levels},
        truth=truth[known],
        mean=np.asarray(rows["v"])[known].astype(np.float64),
        identity=identity,
        persistent_id=persistent,
    )


def _units(connection: Connection, unit: str, level: Level) -> list[str]:
    at = {"unit": unit, "level": level.value}
    return list(connection.execute(text(f'{UNITS} ORDER BY code COLLATE "C"'), at).scalars())


def rows_of(ids: np.ndarray, wanted: np.ndarray) -> tuple[Ints, Bools]:
    """(k,) where each wanted number or uuid stands among different `ids`, and whether it does."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    order = np.argsort(ids)
    row = order[np.searchsorted(ids[order], wanted).clip(0, len(ids) - 1)]
    return row, ids[row] == wanted


def _stored_truth(connection: Connection, cameras: list[str]) -> Said:
    rows = copy_out(connection, _TRUTHS, {"units": cameras}, {"id": "int8", "truth": "text", "many": "int4"})
    people, person = np.unique(np.array(rows["truth"], dtype=object), return_inverse=True)
    return Said(np.asarray(rows["id"]), person, np.asarray(rows["many"], dtype=np.int64), tuple(people))


def _held(connection: Connection, units: list[str], ids: Ints, known: Ints) -> tuple[Ints, np.ndarray]:
    """(n,) Number and persistent id of the identity of `units` that holds each known tracklet."""
    kinds = {"holder": "int8", "tracklet": "int8", "persistent_id": "bytea"}
    held = copy_out(connection, _HOLDERS, {"units": units}, kinds)
    row, there = rows_of(ids, np.asarray(held["tracklet"]))
    holder = -1 - np.arange(len(ids))  # alone
    holder[row[there]] = np.asarray(held["holder"])[there]
    persistent = np.zeros(len(ids), "V16")
    persistent[row[there]] = uuids(held["persistent_id"])[there]
    numbers: Ints = np.unique(holder[known], return_inverse=True)[1]
    return numbers, persistent[known]


def uuids(values: Column) -> np.ndarray:
    """(n,) V16 from a column of uuid_send."""
    assert isinstance(values, list)
    return np.frombuffer(b"".join(values), "V16")


def score(labeled: Labeled, nearest_distances: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Per level above the camera: what `pipeline.accuracy.metrics.agreement` gives of the level's task.

    For levels in `nearest_distances` nearest_neighbor_f1 too, the baseline with that threshold (cosine distance). A
    tracklet that a level does not hold counts as alone.
    """
    result: dict[str, dict[str, float]] = {}
    for level in labeled.levels:
        unit = labeled.unit(level)
        truth = labeled.of_task(level, labeled.truth)
        row = agreement(labeled.of_task(level, labeled.identity[level]), truth, unit, labeled.crops)
        if level.value in nearest_distances:
            groups = nearest_in_unit(labeled.mean, unit)(nearest_distances[level.value])
            row["nearest_neighbor_f1"] = pairwise(labeled.of_task(level, groups), truth, unit).f1
        result[level.value] = row
    return result


def nearest_in_unit(mean: Floats, unit: Ints) -> Cut:
    """The baseline that knows no time: each item (n, D) is linked to its nearest of the same unit, if near enough."""
    order = np.argsort(unit, kind="stable")
    units = [rows for rows in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1) if len(rows)]
    cuts = [nearest_neighbor(untimed(mean[rows])) for rows in units]

    def cut(most: float) -> Ints:
        groups = np.arange(len(mean))
        for rows, own in zip(units, cuts, strict=True):
            groups[rows] = rows[own(most)]  # named by one of the unit's own, so apart from other units
        return groups

    return cut


def identity_churn(before: Labeled, after: Labeled) -> dict[Level, float]:
    """Per level above the camera, of the tracklets in both: the share whose identity has another persistent id."""
    keys: list[Any] = [np.frombuffer(b"".join(side.key), "V32") for side in (before, after)]
    _, a, b = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    return {level: churn(before.persistent_id[level][a], after.persistent_id[level][b]) for level in before.levels}
