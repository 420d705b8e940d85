"""What a window's run writes, and how: everything in the caller's one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline import watermarks
from pipeline.association.prototypes import Prototypes
from pipeline.store.copy import copy_in
from schemas.association import EventKind, PrototypeKind
from schemas.levels import parent_of
from schemas.times import from_us


@dataclass(frozen=True)
class NewIdentity:
    """One version of an identity, to be written. Above camera level it has children, at camera level crops."""

    key: bytes
    persistent_id: UUID
    first_seen_us: int
    last_seen_us: int
    timed: bool
    crops: int
    prototypes: Prototypes | None  # None when retired, or where the model knows none of its members
    child_ids: Sequence[int] = ()
    crop_ids: Sequence[int] = ()
    tracklets: Sequence[int] | None = None  # None: it is a tracklet itself
    retired: bool = False


@dataclass(frozen=True)
class NewEvent:
    kind: EventKind
    persistent_id: UUID
    other_id: UUID | None = None


@dataclass(frozen=True)
class NewDecision:
    """The columns of match_decision; `left_key < right_key`."""

    left_key: bytes
    right_key: bytes
    verdict: str
    distance: float
    appearance_log_odds: float | None
    transit_log_odds: float
    probability: float | None
    operating_point: float | None
    gap_s: float | None
    left_at: str
    right_at: str
    runner_up_key: bytes | None
    runner_up_distance: float | None


@dataclass(frozen=True)
class RunRows:
    run_key: bytes
    unit: str
    window_start: datetime
    window_s: int
    model_id: int
    calibration_id: int | None
    children: int
    context: int
    identities: Sequence[NewIdentity]
    events: Sequence[NewEvent] = ()
    decisions: Sequence[NewDecision] = ()


def days_of(identities: Sequence[NewIdentity]) -> set[date]:
    """The UTC days whose leaves the identities' prototypes go to. The leaves must be there before `write_run`."""
    return {from_us(identity.last_seen_us).date() for identity in identities if identity.prototypes is not None}


def supersede(connection: Connection, unit: str, window: datetime) -> bool:
    """Marks the current run of (unit, window) as superseded, if there is one. Its rows stay."""
    done = connection.execute(
        text(
            "UPDATE run SET superseded_at = now() "
            "WHERE unit = :unit AND window_start = :window AND superseded_at IS NULL"
        ),
        {"unit": unit, "window": window},
    )
    if done.rowcount:
        mark_parent(connection, unit, window)
    return bool(done.rowcount)


def mark_parent(connection: Connection, unit: str, window: datetime) -> None:
    """Says that the parent's windows from this one on may have changed."""
    parent = parent_of(unit)
    if parent is not None:
        watermarks.mark(connection, parent, window)


def write_run(connection: Connection, rows: RunRows) -> int:
    """Supersedes the window's current run by this one; how many rows were written."""
    if not supersede(connection, rows.unit, rows.window_start):
        mark_parent(connection, rows.unit, rows.window_start)
    run_id: int = connection.execute(
        text(
            "INSERT INTO run (run_key, unit, window_start, window_end, model_id, calibration_id, children, context) "
            "VALUES (:key, :unit, :start, :end, :model, :calibration, :children, :context) RETURNING id"
        ),
        {
            "key": rows.run_key,
            "unit": rows.unit,
            "start": rows.window_start,
            "end": rows.window_start + timedelta(seconds=rows.window_s),
            "model": rows.model_id,
            "calibration": rows.calibration_id,
            "children": rows.children,
            "context": rows.context,
        },
    ).scalar_one()
    written = 1 + _write_identities(connection, rows, run_id)
    if rows.events:
        written += copy_in(
            connection,
            "identity_event",
            {
                "run_id": ("int8", np.full(len(rows.events), run_id)),
                "kind": ("enum", [event.kind.value for event in rows.events]),
                "persistent_id": ("uuid", [event.persistent_id for event in rows.events]),
                "other_id": ("uuid", [event.other_id for event in rows.events]),
            },
        )
    if rows.decisions:
        kinds = {
            "left_key": "bytea",
            "right_key": "bytea",
            "verdict": "enum",
            "left_at": "text",
            "right_at": "text",
            "runner_up_key": "bytea",
        }
        names = NewDecision.__dataclass_fields__
        columns = {name: (kinds.get(name, "float8"), [getattr(d, name) for d in rows.decisions]) for name in names}
        columns["run_id"] = ("int8", [run_id] * len(rows.decisions))
        written += copy_in(connection, "match_decision", columns)
    return written


def _write_identities(connection: Connection, rows: RunRows, run_id: int) -> int:
    identities = rows.identities
    if not identities:
        return 0
    ids = np.array(
        connection.execute(
            text("SELECT nextval(pg_get_serial_sequence('identity', 'id')) FROM generate_series(1, :n)"),
            {"n": len(identities)},
        )
        .scalars()
        .all(),
        dtype=np.int64,
    )
    written = copy_in(
        connection,
        "identity",
        {
            "id": ("int8", ids),
            "run_id": ("int8", np.full(len(ids), run_id)),
            "key": ("bytea", [identity.key for identity in identities]),
            "persistent_id": ("uuid", [identity.persistent_id for identity in identities]),
            "unit": ("text", [rows.unit] * len(ids)),
            "window_start": ("timestamptz", [rows.window_start] * len(ids)),
            "first_seen": ("timestamptz", np.array([identity.first_seen_us for identity in identities])),
            "last_seen": ("timestamptz", np.array([identity.last_seen_us for identity in identities])),
            "timed": ("bool", [identity.timed for identity in identities]),
            "crops": ("int4", np.array([identity.crops for identity in identities])),
            "tracklets": (
                "int8[]",
                [
                    [int(own)] if identity.tracklets is None else list(identity.tracklets)
                    for own, identity in zip(ids, identities, strict=True)
                ],
            ),
            "retired": ("bool", [identity.retired for identity in identities]),
        },
    )
    members = [
        (int(own), child, crop)
        for own, identity in zip(ids, identities, strict=True)
        for child, crop in [*((c, None) for c in identity.child_ids), *((None, c) for c in identity.crop_ids)]
    ]
    if members:
        written += copy_in(
            connection,
            "identity_member",
            {
                "identity_id": ("int8", [member[0] for member in members]),
                "child_id": ("int8", [member[1] for member in members]),
                "crop_id": ("int8", [member[2] for member in members]),
            },
        )
    known = [
        (int(own), from_us(identity.last_seen_us).date(), identity.prototypes)
        for own, identity in zip(ids, identities, strict=True)
        if identity.prototypes is not None
    ]
    return written + write_prototypes(connection, rows.model_id, known)


def write_prototypes(connection: Connection, model_id: int, found: Sequence[tuple[int, date, Prototypes]]) -> int:
    """Rows of (identity's id, UTC day of its last_seen, prototypes); how many. Their leaves must be there before."""
    owners: list[int] = []
    days: list[date] = []
    ordinals: list[int] = []
    kinds: list[str] = []
    weights: list[float] = []
    vectors: list[np.ndarray] = []
    for own, day, its in found:
        several = [its.mean, *its.medoids]
        owners += [own] * len(several)
        days += [day] * len(several)
        ordinals += range(len(several))
        kinds += [PrototypeKind.MEAN.value] + [PrototypeKind.MEDOID.value] * len(its.medoids)
        weights += [its.weight] + [its.weight / max(len(its.medoids), 1)] * len(its.medoids)
        vectors += several
    if not owners:
        return 0
    return copy_in(
        connection,
        "prototype",
        {
            "model_id": ("int4", np.full(len(owners), model_id)),
            "day": ("date", days),
            "identity_id": ("int8", np.array(owners)),
            "ordinal": ("int2", np.array(ordinals)),
            "kind": ("enum", kinds),
            "weight": ("float4", np.array(weights)),
            "v": ("halfvec", np.stack(vectors)),
        },
    )
