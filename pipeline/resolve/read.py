"""Queries of a unit's windows: which windows there are, versions of identities with their prototypes, and members."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.resolve.rows import CameraNumbers, Identity, in_time_order
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from schemas.arrays import Ints
from schemas.times import from_us, to_us, utc_days

_WINDOWS = text(
    "SELECT r.window_start, count(*) AS many FROM run r JOIN identity i ON i.run_id = r.id "
    "WHERE r.unit = ANY(:children) AND r.window_start >= :start AND r.superseded_at IS NULL GROUP BY 1 "
    "UNION ALL SELECT window_start, 0 FROM run WHERE unit = :unit AND window_start >= :start AND superseded_at IS NULL"
)


def read_windows(connection: Connection, unit: str, children: Sequence[str], start: datetime) -> dict[datetime, int]:
    """Windows from `start` on in which `children` (units) have new versions or `unit` has a run, in time order.

    Returns the number of the children's versions by window.
    """
    counts: dict[datetime, int] = {}
    for row in connection.execute(_WINDOWS, {"unit": unit, "children": list(children), "start": start}):
        counts[row.window_start] = counts.get(row.window_start, 0) + row.many
    return dict(sorted(counts.items()))


def horizon_start(window: datetime, horizon_s: int) -> datetime:
    """The earliest `last_seen` that a window compares with; not before 1970."""
    return from_us(max(to_us(window) - horizon_s * 1_000_000, 0))


#: Up to `tracklets` in the order of Identity's fields.
_COLUMNS = {
    "id": "int8",
    "key": "bytea",
    "persistent_id": "uuid",
    "unit": "text",
    "first_seen": "timestamptz",
    "last_seen": "timestamptz",
    "timed": "bool",
    "crops": "int4",
    "retired": "bool",
    "tracklets": "int8[]",
    "window_start": "timestamptz",
}
_SELECT = f"SELECT {', '.join(f'i.{name}' for name in _COLUMNS)}"

_VERSIONS = (
    f"{_SELECT} FROM identity i JOIN run r ON r.id = i.run_id WHERE i.unit = ANY(:units) "
    "AND i.window_start >= :start AND i.window_start < :end AND r.superseded_at IS NULL ORDER BY i.key"
)

# An identity's state before the window is its newest version from a current run. The horizon is applied to that version
# only: an older version may lie within the horizon while the newest is retired.
_CONTEXT = (
    "WITH recent AS (SELECT DISTINCT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id "
    "  WHERE i.unit = :unit AND r.superseded_at IS NULL AND i.window_start < :window AND i.last_seen >= :horizon), "
    "state AS (SELECT DISTINCT ON (i.persistent_id) i.* FROM identity i JOIN run r ON r.id = i.run_id "
    "  WHERE i.unit = :unit AND r.superseded_at IS NULL AND i.window_start < :window "
    "  AND i.persistent_id IN (SELECT persistent_id FROM recent) ORDER BY i.persistent_id, i.window_start DESC) "
    f"{_SELECT} FROM state i WHERE NOT i.retired AND i.last_seen >= :horizon"
)


def read_versions(
    connection: Connection, units: Sequence[str], start: datetime, end: datetime, model_id: int, numbers: CameraNumbers
) -> dict[datetime, list[Identity]]:
    """Versions that the current runs of `units` wrote for the windows in [start, end): by window, then by key."""
    versions: dict[datetime, list[Identity]] = {}
    parameters = {"units": list(units), "start": start, "end": end}
    for window_us, identity in _identities(connection, _VERSIONS, parameters, model_id, numbers):
        versions.setdefault(from_us(window_us), []).append(identity)
    return versions


def read_context(
    connection: Connection, unit: str, window: datetime, horizon: datetime, model_id: int, numbers: CameraNumbers
) -> list[Identity]:
    """The unit's identities as they were before the window, of those last seen at `horizon` or later."""
    parameters = {"unit": unit, "window": window, "horizon": horizon}
    return [identity for _, identity in _identities(connection, _CONTEXT, parameters, model_id, numbers)]


_MEMBERS = (
    f"{_SELECT}, m.identity_id AS holder FROM identity_member m JOIN identity i ON i.id = m.child_id "
    "WHERE m.identity_id = ANY(:holders) ORDER BY m.identity_id, i.key"
)


def read_members(
    connection: Connection, holders: Sequence[int], model_id: int, numbers: CameraNumbers
) -> dict[int, list[Identity]]:
    """Children of identities above camera level: holder's id -> children by key.

    Includes children without a prototype of the model, whose pictures were gone when it came into use.
    """
    if not holders:
        return {}
    rows = copy_out(connection, _MEMBERS, {"holders": list(holders)}, {**_COLUMNS, "holder": "int8"})
    members: dict[int, list[Identity]] = {}
    for holder, (_, identity) in zip(rows["holder"], _from_rows(connection, rows, model_id, numbers), strict=True):
        members.setdefault(int(holder), []).append(identity)
    return members


_MEMBER_IDS = text(
    "SELECT m.identity_id AS holder, c.persistent_id AS child FROM identity_member m "
    "JOIN identity c ON c.id = m.child_id WHERE m.identity_id = ANY(:holders)"
)


def read_member_ids(connection: Connection, holders: Sequence[int]) -> dict[int, list[UUID]]:
    """Persistent ids of the same children: holder's id -> children's."""
    members: dict[int, list[UUID]] = {}
    for row in connection.execute(_MEMBER_IDS, {"holders": list(holders)}) if holders else ():
        members.setdefault(row.holder, []).append(row.child)
    return members


def _identities(
    connection: Connection, sql: str, parameters: Mapping[str, object], model_id: int, numbers: CameraNumbers
) -> list[tuple[int, Identity]]:
    return _from_rows(connection, copy_out(connection, sql, parameters, _COLUMNS), model_id, numbers)


def _from_rows(
    connection: Connection, rows: Mapping[str, Column], model_id: int, numbers: CameraNumbers
) -> list[tuple[int, Identity]]:
    """Each row as (start of its window in microseconds, identity)."""
    columns: dict[str, list[Any]] = {name: _as_list(rows[name]) for name in _COLUMNS}
    found = read_prototypes(connection, model_id, columns["id"], utc_days(columns["last_seen"]))
    spans = _read_spans(connection, columns["tracklets"], numbers)
    return [
        (window_us, Identity(*(*fields, tuple(tracklets), span, found.get(fields[0]))))
        for *fields, tracklets, window_us, span in zip(*columns.values(), spans, strict=True)
    ]


def _as_list(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def read_prototypes(
    connection: Connection, model_id: int, identities: Sequence[int], days: Iterable[date]
) -> dict[int, Prototypes]:
    """Prototypes of identities (by id) last seen on these UTC days, in half precision; absent where there are none."""
    if not identities:
        return {}
    rows = copy_out(
        connection,
        "SELECT identity_id, ordinal, weight, v FROM prototype WHERE model_id = :model AND day = ANY(:days) "
        "AND identity_id = ANY(:ids) ORDER BY identity_id, ordinal",
        {"model": model_id, "days": sorted(days), "ids": list(identities)},
        {"identity_id": "int8", "ordinal": "int2", "weight": "float4", "v": "halfvec"},
    )
    owners = np.asarray(rows["identity_id"])
    vectors = np.asarray(rows["v"], dtype=np.float16)
    starts = np.flatnonzero(np.asarray(rows["ordinal"]) == 0)  # ordinal 0 is the mean, then come the medoids
    ends = np.append(starts, len(owners))[1:]
    weights = np.asarray(rows["weight"], dtype=np.float64)
    return {
        int(owners[a]): Prototypes(float(weights[a]), vectors[a], vectors[a + 1 : b])
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    }


_TRACKLETS = "SELECT id, unit, first_seen, last_seen FROM identity WHERE id = ANY(:ids) ORDER BY id"


def _read_spans(connection: Connection, tracklets: Iterable[Sequence[int]], numbers: CameraNumbers) -> list[Ints]:
    """The spans (3, t) of each list of tracklet ids; see Identity."""
    lists = [np.asarray(ids, dtype=np.int64) for ids in tracklets]
    if not lists:
        return []
    wanted = np.unique(np.concatenate(lists))
    kinds = {"id": "int8", "unit": "text", "first_seen": "timestamptz", "last_seen": "timestamptz"}
    rows = copy_out(connection, _TRACKLETS, {"ids": wanted.tolist()}, kinds)
    camera = np.array([numbers[str(unit)] for unit in rows["unit"]], dtype=np.int64)
    spans = np.stack([camera, np.asarray(rows["first_seen"]), np.asarray(rows["last_seen"])]).astype(np.int64)
    known = np.asarray(rows["id"], dtype=np.int64)
    return [in_time_order(spans[:, np.searchsorted(known, ids)]) for ids in lists]
