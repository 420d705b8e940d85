"""Tracklets with known truth: the persons of a unit's tracklets beside the identities that each level gave them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, text

from pipeline.store import Store
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from schemas.arrays import Bools, Floats, Ints
from schemas.levels import UPWARD, Level, level_of


@dataclass(frozen=True)
class Labeled:
    """The n tracklets of a unit with known truth, by key."""

    levels: tuple[Level, ...]  # above the camera, up to the unit's own
    key: list[bytes]  # (n,) ascending
    cameras: tuple[str, ...]  # codes of the unit's cameras, ascending
    camera: Ints  # (n,) index into `cameras`
    start_us: Ints  # (n,) microseconds UTC
    end_us: Ints  # (n,)
    timed: Bools  # (n,)
    crops: Ints  # (n,) number of crops
    people: tuple[str, ...]  # names, ascending
    truth: Ints  # (n,) index into `people`
    mean: Floats  # (n, D) quality-weighted mean feature
    horizon_us: Mapping[Level, int]
    identity: Mapping[Level, Ints]  # (n,) number of the identity; a tracklet in no identity has a number of its own
    persistent_id: Mapping[Level, np.ndarray]  # (n,) V16, of the identity; zero where there is none

    def unit(self, level: Level) -> Ints:
        """(n,) Number of the unit of `level` that each tracklet was seen in."""
        segments = {Level.CAMERA: 4, Level.BUILDING: 3, Level.STREET: 2, Level.DISTRICT: 1}[level]
        codes = ["/".join(code.split("/")[:segments]) for code in self.cameras]
        numbers: Ints = np.unique(codes, return_inverse=True)[1] if codes else np.empty(0, np.int64)
        return numbers[self.camera]

    def episodes(self, level: Level, group: Ints) -> Ints:
        """(n,) The groups, or people, cut to the task of `level`; see `episodes`.

        A person who comes back after the level's horizon counts as another: finding them again is the task of the level
        above. Untimed tracklets are never cut.
        """
        start, end = (
            np.where(self.timed, times, self.start_us.min(initial=0)) for times in (self.start_us, self.end_us)
        )
        return episodes(group, self.unit(level), start, end, self.horizon_us[level])


@dataclass(frozen=True)
class TrackletLabels:
    """k entries: tracklet, person, number of labeled crops. A tracklet may have several."""

    tracklet: Ints  # (k,) ids; tracklets outside the unit are ignored
    person: Ints  # (k,) index into `people`
    crops: Ints  # (k,)
    people: tuple[str, ...]  # names, ascending


#: Selects the codes of a unit and all below it that are of one level.
UNITS = (
    "SELECT code FROM urban_unit WHERE level = CAST(:level AS unit_level) "
    "AND (code = :unit OR starts_with(code, :unit || '/'))"
)
# The codes are passed as an array, which PostgreSQL pushes down into the view; a join would sort the whole city's
# identities.
_TRACKLETS = (
    "SELECT t.id, t.key, CAST(c.number - 1 AS int4), t.crops, t.timed, t.first_seen, t.last_seen, "
    "uuid_send(t.persistent_id), p.v FROM identity_now t "
    "JOIN unnest(CAST(:units AS text[])) WITH ORDINALITY AS c (code, number) ON c.code = t.unit "
    "JOIN prototype p ON p.identity_id = t.id AND p.ordinal = 0 AND p.model_id = :model "
    "WHERE t.unit = ANY(CAST(:units AS text[])) ORDER BY t.key"
)
_IDENTITIES = (
    "SELECT n.id, below.id, uuid_send(n.persistent_id) FROM identity_now n "
    "CROSS JOIN unnest(n.tracklets) AS below(id) WHERE n.unit = ANY(CAST(:units AS text[]))"
)
_TRUTHS = (
    "SELECT m.identity_id, t.truth, CAST(count(*) AS int4) FROM crop c JOIN crop_truth t ON t.crop_id = c.id "
    "JOIN identity_member m ON m.crop_id = c.id WHERE c.camera = ANY(CAST(:units AS text[])) GROUP BY 1, 2"
)


def labeled_tracklets(
    store: Store, unit: str, model_id: int, read_labels: Callable[[Connection], TrackletLabels] | None = None
) -> Labeled:
    """The tracklets at and below the unit whose crops are labeled, each with the person of most of its labeled crops.

    read_labels: the source of the labels; those that came with the crops unless given. Ties go to the first name.
    """
    with store.begin() as connection:
        units = {level: _units(connection, unit, level) for level in UPWARD}
        at = {"units": units[Level.CAMERA], "model": model_id}
        kinds = {"id": "int8", "key": "bytea", "camera": "int4", "crops": "int4", "timed": "bool"}
        times = {"start": "timestamptz", "end": "timestamptz", "persistent_id": "bytea", "v": "halfvec"}
        rows = copy_out(connection, _TRACKLETS, at, kinds | times)
        labels = (read_labels or _ingested_labels(units[Level.CAMERA]))(connection)
        ids = np.asarray(rows["id"])
        row, found = rows_of(ids, labels.tracklet)
        truth = majority(row[found], labels.person[found], labels.crops[found], len(ids))
        known = np.flatnonzero(truth >= 0)
        identity = {Level.CAMERA: np.arange(len(known))}
        persistent = {Level.CAMERA: uuids(rows["persistent_id"])[known]}
        levels = UPWARD[1 : UPWARD.index(level_of(unit)) + 1]
        for level in levels:
            identity[level], persistent[level] = _identities(connection, units[level], ids, known)
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


def _ingested_labels(cameras: list[str]) -> Callable[[Connection], TrackletLabels]:
    """The labels that came with the crops of these cameras."""

    def read(connection: Connection) -> TrackletLabels:
        rows = copy_out(connection, _TRUTHS, {"units": cameras}, {"id": "int8", "truth": "text", "crops": "int4"})
        people, person = np.unique(np.array(rows["truth"], dtype=object), return_inverse=True)
        crops = np.asarray(rows["crops"], dtype=np.int64)
        return TrackletLabels(np.asarray(rows["id"]), person, crops, tuple(people))

    return read


def _identities(connection: Connection, units: list[str], ids: Ints, known: Ints) -> tuple[Ints, np.ndarray]:
    """For the known tracklets (n,): number and persistent id of the identity, of one of the units, that holds each.

    ids: of all tracklets. known: their rows in it.
    """
    kinds = {"identity": "int8", "tracklet": "int8", "persistent_id": "bytea"}
    members = copy_out(connection, _IDENTITIES, {"units": units}, kinds)
    row, found = rows_of(ids, np.asarray(members["tracklet"]))
    identity = -1 - np.arange(len(ids))  # alone
    identity[row[found]] = np.asarray(members["identity"])[found]
    persistent = np.zeros(len(ids), "V16")
    persistent[row[found]] = uuids(members["persistent_id"])[found]
    numbers: Ints = np.unique(identity[known], return_inverse=True)[1]
    return numbers, persistent[known]


def rows_of(ids: np.ndarray, wanted: np.ndarray) -> tuple[Ints, Bools]:
    """Row of each wanted id (k,) in the distinct `ids`, and whether it is there (k,)."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    order = np.argsort(ids)
    row = order[np.searchsorted(ids[order], wanted).clip(0, len(ids) - 1)]
    return row, ids[row] == wanted


def uuids(values: Column) -> np.ndarray:
    """(n,) V16 from a column of uuid_send."""
    assert isinstance(values, list)
    return np.frombuffer(b"".join(values), "V16")


def episodes(group: Ints, unit: Ints, start_us: Ints, end_us: Ints, horizon_us: int) -> Ints:
    """(n,) The groups of each unit, cut wherever nothing of a group was seen for longer than the horizon; from 0."""
    if not len(group):
        return np.empty(0, np.int64)
    own = np.unique(np.stack([unit, group]), axis=1, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((start_us, own))
    own, start, end = own[order], start_us[order], end_us[order]
    width = int(end.max() - start.min()) + 1
    seen_until = np.maximum.accumulate(own * width + (end - start.min()))[:-1] - own[:-1] * width + start.min()
    begins = np.concatenate([[True], (own[1:] != own[:-1]) | (start[1:] - seen_until > horizon_us)])
    result = np.empty(len(group), np.int64)
    result[order] = np.cumsum(begins) - 1
    return result


def majority(group: Ints, value: Ints, weight: Ints, groups: int) -> Ints:
    """(groups,) The value with the largest total weight in each group, of equals the lowest; -1 for an empty group.

    group, value, weight: (k,).
    """
    order = np.lexsort((value, group))
    g, v = group[order], value[order]
    begin = np.flatnonzero(np.append(True, (np.diff(g) != 0) | (np.diff(v) != 0))[: len(g)])
    total = np.add.reduceat(weight[order], begin) if len(begin) else np.empty(0, np.int64)
    ascending = np.lexsort((-v[begin], total, g[begin]))  # the heaviest value of each group is written last
    result = np.full(groups, -1, dtype=np.int64)
    result[g[begin][ascending]] = v[begin][ascending]
    return result
