"""What a unit's windows read: its children's versions, its own identities as they were before, and their members."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.store.copy import copy_out
from pipeline.store.copy_format import Column
from schemas.arrays import Ints
from schemas.times import from_us, to_us

_DAY_US = 86_400_000_000

#: From a camera's code to its number in the unit's geometry.
CameraNumbers = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Identity:
    """One version of an identity, with its prototypes."""

    id: int
    key: bytes
    persistent_id: UUID
    unit: str
    first_seen_us: int
    last_seen_us: int
    timed: bool
    crops: int
    retired: bool
    tracklets: tuple[int, ...]
    spans: Ints  # (3, t) its tracklets' camera number, start and end in microseconds; in time order
    prototypes: Prototypes | None  # None when retired, or where the run's model knows none of its crops


def in_time_order(spans: Ints) -> Ints:
    """`spans` (3, t) by start, end and camera."""
    return spans[:, np.lexsort((spans[0], spans[2], spans[1]))]


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

# An identity's state before the window is its newest version from a current run; only then may the horizon cut.
_CONTEXT = (
    "WITH recent AS (SELECT DISTINCT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id "
    "  WHERE i.unit = :unit AND r.superseded_at IS NULL AND i.window_start < :window AND i.last_seen >= :horizon), "
    "state AS (SELECT DISTINCT ON (i.persistent_id) i.* FROM identity i JOIN run r ON r.id = i.run_id "
    "  WHERE i.unit = :unit AND r.superseded_at IS NULL AND i.window_start < :window "
    "  AND i.persistent_id IN (SELECT persistent_id FROM recent) ORDER BY i.persistent_id, i.window_start DESC) "
    f"{_SELECT} FROM state i WHERE NOT i.retired AND i.last_seen >= :horizon"
)

_NOW = f"{_SELECT} FROM identity_now i WHERE parent_of(i.unit) = :unit ORDER BY i.key"


def read_versions(
    connection: Connection, units: Sequence[str], start: datetime, end: datetime, model_id: int, numbers: CameraNumbers
) -> dict[datetime, list[Identity]]:
    """What the current runs of `units` made of the windows in [start, end), each window's by key."""
    found: dict[datetime, list[Identity]] = {}
    at = {"units": list(units), "start": start, "end": end}
    for window_us, identity in _identities(connection, _VERSIONS, at, model_id, numbers):
        found.setdefault(from_us(window_us), []).append(identity)
    return found


def read_context(
    connection: Connection, unit: str, window: datetime, horizon: datetime, model_id: int, numbers: CameraNumbers
) -> list[Identity]:
    """The unit's identities as they were before the window, last seen at `horizon` or later."""
    at = {"unit": unit, "window": window, "horizon": horizon}
    return [identity for _, identity in _identities(connection, _CONTEXT, at, model_id, numbers)]


def read_children_now(connection: Connection, unit: str, model_id: int, numbers: CameraNumbers) -> list[Identity]:
    """All children that the unit has now and the model knows, by key."""
    found = _identities(connection, _NOW, {"unit": unit}, model_id, numbers)
    return [identity for _, identity in found if identity.prototypes is not None]


_MEMBERS = (
    f"{_SELECT}, m.identity_id AS holder FROM identity_member m JOIN identity i ON i.id = m.child_id "
    "WHERE m.identity_id = ANY(:holders) ORDER BY m.identity_id, i.key"
)


def read_members(
    connection: Connection, holders: Sequence[int], model_id: int, numbers: CameraNumbers
) -> dict[int, list[Identity]]:
    """The children of identities above camera level, by key: holder's id -> children.

    Those too that the model does not know, because their pictures were gone when it came into use.
    """
    if not holders:
        return {}
    rows = copy_out(connection, _MEMBERS, {"holders": list(holders)}, {**_COLUMNS, "holder": "int8"})
    result: dict[int, list[Identity]] = {}
    for holder, (_, identity) in zip(rows["holder"], _of_rows(connection, rows, model_id, numbers), strict=True):
        result.setdefault(int(holder), []).append(identity)
    return result


_MEMBERS_IDS = text(
    "SELECT m.identity_id AS holder, c.persistent_id AS child FROM identity_member m "
    "JOIN identity c ON c.id = m.child_id WHERE m.identity_id = ANY(:holders)"
)


def read_member_ids(connection: Connection, holders: Sequence[int]) -> dict[int, list[UUID]]:
    """The persistent ids of the same: holder's id -> children's."""
    result: dict[int, list[UUID]] = {}
    for row in connection.execute(_MEMBERS_IDS, {"holders": list(holders)}) if holders else ():
        result.setdefault(row.holder, []).append(row.child)
    return result


def _identities(
    connection: Connection, sql: str, params: Mapping[str, object], model_id: int, numbers: CameraNumbers
) -> list[tuple[int, Identity]]:
    return _of_rows(connection, copy_out(connection, sql, params, _COLUMNS), model_id, numbers)


def _of_rows(
    connection: Connection, rows: Mapping[str, Column], model_id: int, numbers: CameraNumbers
) -> list[tuple[int, Identity]]:
    """(start of its window in microseconds, identity) of each row."""
    columns: dict[str, list[Any]] = {name: _as_list(rows[name]) for name in _COLUMNS}
    vectors = read_prototypes(connection, model_id, columns["id"], days_of(columns["last_seen"]))
    spans = _spans(connection, columns["tracklets"], numbers)
    return [
        (
            window_us,
            Identity(own, key, its, unit, first, last, timed, crops, retired, tuple(below), where, vectors.get(own)),
        )
        for own, key, its, unit, first, last, timed, crops, retired, below, window_us, where in zip(
            *columns.values(), spans, strict=True
        )
    ]


def _as_list(column: Column) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def days_of(times_us: Iterable[int]) -> set[date]:
    """The UTC days of these times."""
    return {from_us(day * _DAY_US).date() for day in {us // _DAY_US for us in times_us}}


def read_prototypes(
    connection: Connection, model_id: int, identities: Sequence[int], days: Iterable[date]
) -> dict[int, Prototypes]:
    """Of identities last seen on these UTC days, as stored: in half precision."""
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
    starts = np.flatnonzero(np.asarray(rows["ordinal"]) == 0)
    ends = np.append(starts, len(owners))[1:]
    weights = np.asarray(rows["weight"], dtype=np.float64)
    return {
        int(owners[a]): Prototypes(float(weights[a]), vectors[a], vectors[a + 1 : b])
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    }


_TRACKLETS = "SELECT id, unit, first_seen, last_seen FROM identity WHERE id = ANY(:ids) ORDER BY id"


def _spans(connection: Connection, tracklets: Iterable[Sequence[int]], numbers: CameraNumbers) -> list[Ints]:
    """(3, t) of each list of tracklets."""
    lists = [np.asarray(below, dtype=np.int64) for below in tracklets]
    if not lists:
        return []
    wanted = np.unique(np.concatenate(lists))
    kinds = {"id": "int8", "unit": "text", "first_seen": "timestamptz", "last_seen": "timestamptz"}
    rows = copy_out(connection, _TRACKLETS, {"ids": wanted.tolist()}, kinds)
    camera = np.array([numbers[str(unit)] for unit in rows["unit"]], dtype=np.int64)
    every = np.stack([camera, np.asarray(rows["first_seen"]), np.asarray(rows["last_seen"])]).astype(np.int64)
    ids = np.asarray(rows["id"], dtype=np.int64)
    return [in_time_order(every[:, np.searchsorted(ids, below)]) for below in lists]


_PENDING = text(
    "SELECT r.window_start, count(*) AS many FROM run r JOIN identity i ON i.run_id = r.id "
    "WHERE r.unit = ANY(:children) AND r.window_start >= :start AND r.superseded_at IS NULL GROUP BY 1 "
    "UNION ALL SELECT window_start, 0 FROM run WHERE unit = :unit AND window_start >= :start AND superseded_at IS NULL"
)


def windows_from(connection: Connection, unit: str, children: Sequence[str], start: datetime) -> dict[datetime, int]:
    """Windows from `start` on in which `children` were seen, or in which the unit has a run, in time order.

    With how many versions of its children there are in each.
    """
    found: dict[datetime, int] = {}
    for row in connection.execute(_PENDING, {"unit": unit, "children": list(children), "start": start}):
        found[row.window_start] = found.get(row.window_start, 0) + row.many
    return dict(sorted(found.items()))


_ALIVE = text(
    "SELECT persistent_id FROM (SELECT DISTINCT ON (i.persistent_id) i.persistent_id, i.retired FROM identity i "
    "  JOIN run r ON r.id = i.run_id WHERE i.unit = :unit AND i.persistent_id = ANY(:ids) "
    "  AND i.window_start < :window AND r.superseded_at IS NULL ORDER BY i.persistent_id, i.window_start DESC"
    ") AS newest WHERE NOT retired"
)


def read_alive(connection: Connection, unit: str, ids: Sequence[UUID], window: datetime) -> set[UUID]:
    """Which of these ids an identity of the unit bears before the window, however long ago it was seen."""
    at = {"unit": unit, "ids": list(ids), "window": window}
    return set(connection.execute(_ALIVE, at).scalars()) if ids else set()


_HEIRS = text(
    "SELECT c.persistent_id AS child, i.persistent_id AS parent, min(i.id) AS oldest FROM identity c "
    "JOIN identity_member m ON m.child_id = c.id JOIN identity i ON i.id = m.identity_id "
    "WHERE i.unit = :unit AND c.persistent_id = ANY(:children) GROUP BY 1, 2 ORDER BY 3"
)


def earlier_ids(connection: Connection, unit: str, children: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    """For each child, the unit's persistent ids that ever held it, oldest commit first.

    Superseded runs count too: a person keeps the id that was seen first, whatever was resolved again since.
    """
    result: dict[UUID, list[UUID]] = {}
    for row in connection.execute(_HEIRS, {"unit": unit, "children": list(children)}) if children else ():
        result.setdefault(row.child, []).append(row.parent)
    return result


def horizon_start(window: datetime, horizon_s: int) -> datetime:
    """How far back a window looks; not before 1970."""
    return from_us(max(to_us(window) - horizon_s * 1_000_000, 0))
