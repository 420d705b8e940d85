"""What a window's run reads: the unit's children of the window, and its own identities as they were before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.association.transit import EDGES_S, TransitModel, fit
from pipeline.store.copy import copy_out
from schemas.times import to_us


@dataclass(frozen=True)
class Identity:
    """One stored version of an identity, with its prototypes."""

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
    prototypes: Prototypes | None  # None when retired, or where the run's model knows none of its crops


@dataclass(frozen=True)
class Tracklet:
    camera: str
    start_us: int
    end_us: int


@dataclass(frozen=True)
class Inputs:
    children: list[Identity]  # versions that the window's runs of the child units wrote, by key
    gone: Mapping[UUID, bytes]  # children that were retired in the window: persistent id -> last key
    context: list[Identity]  # the unit's own identities as of the window's start, by key
    #: Members of those of the context that hold an earlier version of one of the children, or one that is gone.
    touched: Mapping[UUID, list[Identity]]
    tracklets: Mapping[int, Tracklet]
    transit: TransitModel = field(repr=False)


_COLUMNS = "i.id, i.key, i.persistent_id, i.unit, i.first_seen, i.last_seen, i.timed, i.crops, i.retired, i.tracklets"

_CHILDREN = text(
    f"SELECT {_COLUMNS} FROM identity i JOIN run r ON r.id = i.run_id JOIN urban_unit u ON u.code = i.unit "
    "WHERE u.parent = :unit AND i.window_start = :window AND r.superseded_at IS NULL"
)

# An identity's state before the window is its newest version from a current run; only then may the horizon cut.
_CONTEXT = text(
    "WITH recent AS (SELECT DISTINCT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id "
    "  WHERE i.unit = :unit AND r.superseded_at IS NULL AND i.window_start < :window AND i.last_seen >= :horizon), "
    "state AS (SELECT DISTINCT ON (i.persistent_id) i.* FROM identity i JOIN run r ON r.id = i.run_id "
    "  WHERE i.unit = :unit AND r.superseded_at IS NULL AND i.window_start < :window "
    "  AND i.persistent_id IN (SELECT persistent_id FROM recent) ORDER BY i.persistent_id, i.window_start DESC) "
    f"SELECT {_COLUMNS} FROM state i WHERE NOT i.retired AND i.last_seen >= :horizon"
)

_HOLDERS = text(
    "SELECT DISTINCT m.identity_id FROM identity_member m JOIN identity c ON c.id = m.child_id "
    "WHERE m.identity_id = ANY(:holders) AND c.persistent_id = ANY(:children)"
)

_MEMBERS = text(
    f"SELECT m.identity_id AS holder, {_COLUMNS} FROM identity_member m JOIN identity i ON i.id = m.child_id "
    "WHERE m.identity_id = ANY(:holders) ORDER BY m.identity_id, i.key"
)

_TRACKLETS = text("SELECT id, unit, first_seen, last_seen FROM identity WHERE id = ANY(:ids)")

_JOINS = text(
    "SELECT d.left_at, d.right_at, width_bucket(d.gap_s, CAST(:edges AS float8[])) AS bin, count(*) AS many "
    "FROM match_decision d JOIN run r ON r.id = d.run_id WHERE r.unit = :unit AND r.superseded_at IS NULL "
    "AND r.window_start < :window AND d.verdict = 'join' AND d.gap_s IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)


def read_inputs(
    connection: Connection,
    unit: str,
    window: datetime,
    *,
    horizon_s: int,
    model_id: int,
    children_codes: Sequence[str],
) -> Inputs:
    """Everything that a run of (unit, window) depends on, besides model, calibration and settings."""
    at = {"unit": unit, "window": window}
    child_rows = connection.execute(_CHILDREN, at).all()
    horizon = window - timedelta(seconds=min(horizon_s, to_us(window) // 1_000_000))
    context_rows = connection.execute(_CONTEXT, {**at, "horizon": horizon}).all()
    holders = connection.execute(
        _HOLDERS,
        {"holders": [row.id for row in context_rows], "children": [row.persistent_id for row in child_rows]},
    ).scalars()
    members = read_members(connection, list(holders), model_id)
    vectors = _prototypes(connection, model_id, [row.id for row in (*child_rows, *context_rows) if not row.retired])
    # Of whom the model knows nothing, it can say nothing: vectors of two models are never compared.
    context = [identity for row in context_rows if (identity := _identity(row, vectors)).prototypes is not None]
    children = [
        identity for row in child_rows if (identity := _identity(row, vectors)).prototypes is not None or row.retired
    ]
    by_id = {identity.id: identity.persistent_id for identity in context}
    index = {code: i for i, code in enumerate(children_codes)}
    joins = connection.execute(_JOINS, {**at, "edges": EDGES_S.tolist()}).all()
    everyone = [*children, *context, *(m for group in members.values() for m in group)]
    return Inputs(
        children=sorted((child for child in children if not child.retired), key=lambda child: child.key),
        gone={child.persistent_id: child.key for child in children if child.retired},
        context=sorted(context, key=lambda identity: identity.key),
        touched={by_id[holder]: group for holder, group in members.items() if holder in by_id},
        tracklets=_tracklets(connection, sorted({t for identity in everyone for t in identity.tracklets})),
        transit=fit(len(children_codes), [(index[j[0]], index[j[1]], j[2], j[3]) for j in joins], horizon_s),
    )


_CHILDREN_NOW = text(f"SELECT {_COLUMNS} FROM identity_now i WHERE parent_of(i.unit) = :unit ORDER BY i.key")


def read_children_now(
    connection: Connection, unit: str, model_id: int
) -> tuple[list[Identity], Mapping[int, Tracklet]]:
    """All children that the unit has now, by key, and the tracklets below them."""
    rows = connection.execute(_CHILDREN_NOW, {"unit": unit}).all()
    vectors = _prototypes(connection, model_id, [row.id for row in rows])
    children = [identity for row in rows if (identity := _identity(row, vectors)).prototypes is not None]
    return children, _tracklets(connection, sorted({t for child in children for t in child.tracklets}))


def read_members(connection: Connection, holders: Sequence[int], model_id: int) -> dict[int, list[Identity]]:
    """The children of identities above camera level, by key: holder's id -> children.

    Those too that the model does not know, because their pictures were gone when it came into use.
    """
    rows = connection.execute(_MEMBERS, {"holders": list(holders)}).all() if holders else []
    vectors = _prototypes(connection, model_id, sorted({row.id for row in rows}))
    result: dict[int, list[Identity]] = {}
    for row in rows:
        result.setdefault(row.holder, []).append(_identity(row, vectors))
    return result


def _prototypes(connection: Connection, model_id: int, ids: Sequence[int]) -> dict[int, Prototypes]:
    """By identity, in float64 from the stored half precision."""
    if not ids:
        return {}
    rows = copy_out(
        connection,
        "SELECT identity_id, ordinal, weight, v FROM prototype "
        "WHERE model_id = :model AND identity_id = ANY(:ids) ORDER BY identity_id, ordinal",
        {"model": model_id, "ids": [int(i) for i in ids]},
        {"identity_id": "int8", "ordinal": "int2", "weight": "float4", "v": "halfvec"},
    )
    owners = np.asarray(rows["identity_id"])
    vectors = np.asarray(rows["v"], dtype=np.float64)
    starts = np.flatnonzero(np.asarray(rows["ordinal"]) == 0)
    ends = np.append(starts, len(owners))[1:]
    return {
        int(owners[a]): Prototypes(float(rows["weight"][a]), vectors[a], vectors[a + 1 : b])
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    }


def _identity(row: Any, vectors: Mapping[int, Prototypes]) -> Identity:
    return Identity(
        row.id,
        bytes(row.key),
        row.persistent_id,
        row.unit,
        to_us(row.first_seen),
        to_us(row.last_seen),
        row.timed,
        row.crops,
        row.retired,
        tuple(row.tracklets),
        vectors.get(row.id),
    )


def _tracklets(connection: Connection, ids: list[int]) -> dict[int, Tracklet]:
    rows = connection.execute(_TRACKLETS, {"ids": ids}).all() if ids else []
    return {row.id: Tracklet(row.unit, to_us(row.first_seen), to_us(row.last_seen)) for row in rows}


_BELOW = text(
    "SELECT i.window_start FROM identity i JOIN run r ON r.id = i.run_id JOIN urban_unit u ON u.code = i.unit "
    "WHERE u.parent = :unit AND i.window_start >= :start AND r.superseded_at IS NULL "
    "UNION SELECT window_start FROM run WHERE unit = :unit AND window_start >= :start AND superseded_at IS NULL "
    "ORDER BY 1"
)


def windows_from(connection: Connection, unit: str, start: datetime) -> list[datetime]:
    """Windows from `start` on in which the unit's children were seen, or in which it has a run."""
    return list(connection.execute(_BELOW, {"unit": unit, "start": start}).scalars())


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
    for row in connection.execute(_HEIRS, {"unit": unit, "children": list(children)}):
        result.setdefault(row.child, []).append(row.parent)
    return result
