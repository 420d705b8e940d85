"""What a window's run writes, and how: everything in the caller's one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.city import watermarks
from pipeline.resolve.read import Identity, days_of
from pipeline.store.copy import copy_in
from schemas.arrays import Ints
from schemas.association import EventKind, PrototypeKind
from schemas.levels import parent_of
from schemas.times import from_us


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """One version of an identity, to be written. Above camera level it has children, at camera level crops."""

    id: int
    key: bytes
    persistent_id: UUID
    first_seen_us: int
    last_seen_us: int
    timed: bool
    crops: int
    prototypes: Prototypes | None  # None when retired, or where the model knows none of its members
    tracklets: tuple[int, ...]
    spans: Ints  # (3, t) see Identity
    children: Sequence[Identity] = ()
    crop_ids: Sequence[int] = ()
    retired: bool = False

    def as_stored(self, unit: str) -> Identity:
        """What the store gives back of it."""
        return Identity(
            self.id,
            self.key,
            self.persistent_id,
            unit,
            self.first_seen_us,
            self.last_seen_us,
            self.timed,
            self.crops,
            self.retired,
            self.tracklets,
            self.spans,
            None if self.prototypes is None else self.prototypes.as_stored(),
        )


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
    way_s: float | None
    left_at: str
    right_at: str
    runner_up_key: bytes | None
    runner_up_distance: float | None


@dataclass(frozen=True)
class RunRows:
    """One window's run of a unit."""

    run_key: bytes
    window_start: datetime
    children: int
    context: int
    identities: Sequence[NewIdentity]
    events: Sequence[NewEvent] = ()
    decisions: Sequence[NewDecision] = ()

    @property
    def rows(self) -> int:
        """How many it is in the store, vectors aside."""
        members = sum(len(identity.children) + len(identity.crop_ids) for identity in self.identities)
        return 1 + len(self.identities) + members + len(self.events) + len(self.decisions)


def leaf_days(runs: Iterable[RunRows]) -> set[date]:
    """The UTC days whose leaves the runs' prototypes go to. The leaves must be there before `write_runs`."""
    return days_of(its.last_seen_us for run in runs for its in run.identities if its.prototypes is not None)


def new_ids(connection: Connection, table: str, count: int) -> list[int]:
    """Numbers of rows that nobody else will use."""
    sql = "SELECT nextval(pg_get_serial_sequence(:table, 'id')) FROM generate_series(1, :n)"
    return [int(one) for one in connection.execute(text(sql), {"table": table, "n": count}).scalars()]


def supersede(connection: Connection, unit: str, windows: Sequence[datetime]) -> None:
    """Marks the current runs of these windows as superseded. Their rows stay."""
    connection.execute(
        text(
            "UPDATE run SET superseded_at = now() "
            "WHERE unit = :unit AND window_start = ANY(:windows) AND superseded_at IS NULL"
        ),
        {"unit": unit, "windows": list(windows)},
    )


def mark_parent(connection: Connection, unit: str, window: datetime) -> None:
    """Says that the parent's windows from this one on may have changed."""
    parent = parent_of(unit)
    if parent is not None:
        watermarks.mark(connection, parent, window)


def write_runs(
    connection: Connection,
    unit: str,
    window_s: int,
    model_id: int,
    calibration_id: int | None,
    runs: Sequence[RunRows],
) -> None:
    """Writes the runs of some windows of a unit, whose earlier runs are superseded."""
    ids = new_ids(connection, "run", len(runs))
    length = timedelta(seconds=window_s)
    copy_in(
        connection,
        "run",
        {
            "id": ("int8", np.array(ids)),
            "run_key": ("bytea", [run.run_key for run in runs]),
            "unit": ("text", [unit] * len(runs)),
            "window_start": ("timestamptz", [run.window_start for run in runs]),
            "window_end": ("timestamptz", [run.window_start + length for run in runs]),
            "model_id": ("int4", np.full(len(runs), model_id)),
            "calibration_id": ("int8", [calibration_id] * len(runs)),
            "children": ("int4", np.array([run.children for run in runs])),
            "context": ("int4", np.array([run.context for run in runs])),
        },
    )
    _write_identities(connection, unit, model_id, ids, runs)
    events = [(own, event) for own, run in zip(ids, runs, strict=True) for event in run.events]
    if events:
        copy_in(
            connection,
            "identity_event",
            {
                "run_id": ("int8", np.array([own for own, _ in events])),
                "kind": ("enum", [event.kind.value for _, event in events]),
                "persistent_id": ("uuid", [event.persistent_id for _, event in events]),
                "other_id": ("uuid", [event.other_id for _, event in events]),
            },
        )
    decisions = [(own, decision) for own, run in zip(ids, runs, strict=True) for decision in run.decisions]
    if decisions:
        kinds = {
            "left_key": "bytea",
            "right_key": "bytea",
            "verdict": "enum",
            "left_at": "text",
            "right_at": "text",
            "runner_up_key": "bytea",
        }
        names = NewDecision.__dataclass_fields__
        columns = {name: (kinds.get(name, "float8"), [getattr(d, name) for _, d in decisions]) for name in names}
        columns["run_id"] = ("int8", [own for own, _ in decisions])
        copy_in(connection, "match_decision", columns)


def _write_identities(
    connection: Connection, unit: str, model_id: int, run_ids: Sequence[int], runs: Sequence[RunRows]
) -> None:
    rows = [
        (run_id, run.window_start, identity)
        for run_id, run in zip(run_ids, runs, strict=True)
        for identity in run.identities
    ]
    if not rows:
        return
    identities = [identity for _, _, identity in rows]
    copy_in(
        connection,
        "identity",
        {
            "id": ("int8", np.array([identity.id for identity in identities])),
            "run_id": ("int8", np.array([run_id for run_id, _, _ in rows])),
            "key": ("bytea", [identity.key for identity in identities]),
            "persistent_id": ("uuid", [identity.persistent_id for identity in identities]),
            "unit": ("text", [unit] * len(rows)),
            "window_start": ("timestamptz", [window for _, window, _ in rows]),
            "first_seen": ("timestamptz", np.array([identity.first_seen_us for identity in identities])),
            "last_seen": ("timestamptz", np.array([identity.last_seen_us for identity in identities])),
            "timed": ("bool", [identity.timed for identity in identities]),
            "crops": ("int4", np.array([identity.crops for identity in identities])),
            "tracklets": ("int8[]", [identity.tracklets for identity in identities]),
            "retired": ("bool", [identity.retired for identity in identities]),
        },
    )
    members = [
        (identity.id, child, crop)
        for identity in identities
        for child, crop in [*((c.id, None) for c in identity.children), *((None, c) for c in identity.crop_ids)]
    ]
    if members:
        copy_in(
            connection,
            "identity_member",
            {
                "identity_id": ("int8", np.array([member[0] for member in members])),
                "child_id": ("int8", [member[1] for member in members]),
                "crop_id": ("int8", [member[2] for member in members]),
            },
        )
    known = [
        (identity.id, from_us(identity.last_seen_us).date(), identity.prototypes)
        for identity in identities
        if identity.prototypes is not None
    ]
    write_prototypes(connection, model_id, known)


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
