"""Writes the runs of a unit's windows, and prototypes. Everything happens in the caller's transaction."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import numpy as np
from sqlalchemy import Connection, text

from pipeline.association.prototypes import Prototypes
from pipeline.city import watermarks
from pipeline.resolve.rows import NewDecision, NewIdentity, RunRows
from pipeline.store.copy import copy_in, copy_out, new_ids
from schemas.association import PrototypeKind
from schemas.keys import decision_hash, group_hash
from schemas.levels import level_of, parent_of
from schemas.times import from_us


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
    """Marks the parent's windows from `window` on as possibly changed. A district has no parent."""
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
    """Writes the runs of several windows of a unit. Earlier runs of these windows must be superseded before."""
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
    _write_events(connection, ids, runs)
    _write_decisions(connection, unit, ids, runs)


def _write_events(connection: Connection, run_ids: Sequence[int], runs: Sequence[RunRows]) -> None:
    events = [(run_id, event) for run_id, run in zip(run_ids, runs, strict=True) for event in run.events]
    if events:
        copy_in(
            connection,
            "identity_event",
            {
                "run_id": ("int8", np.array([run_id for run_id, _ in events])),
                "kind": ("enum", [event.kind.value for _, event in events]),
                "persistent_id": ("uuid", [event.persistent_id for _, event in events]),
                "other_id": ("uuid", [event.other_id for _, event in events]),
            },
        )


def _write_decisions(connection: Connection, unit: str, run_ids: Sequence[int], runs: Sequence[RunRows]) -> None:
    decisions = [(run_id, decision) for run_id, run in zip(run_ids, runs, strict=True) for decision in run.decisions]
    if decisions:
        level = level_of(unit)
        types = {
            "left_key": "bytea",
            "right_key": "bytea",
            "verdict": "enum",
            "left_at": "text",
            "right_at": "text",
            "runner_up_key": "bytea",
            "answered": "bool",
        }
        names = NewDecision.__dataclass_fields__
        columns = {name: (types.get(name, "float8"), [getattr(d, name) for _, d in decisions]) for name in names}
        columns["run_id"] = ("int8", [run_id for run_id, _ in decisions])
        columns["row_hash"] = (
            "bytea",
            [
                decision_hash(level, unit, run.window_start, d.verdict, d.left_key, d.right_key)
                for run in runs
                for d in run.decisions
            ],
        )
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
            "row_hash": ("bytea", _group_hashes(connection, unit, identities)),
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
    prototypes = [
        (identity.id, from_us(identity.last_seen_us).date(), identity.prototypes)
        for identity in identities
        if identity.prototypes is not None
    ]
    write_prototypes(connection, model_id, prototypes)


def _group_hashes(connection: Connection, unit: str, identities: Sequence[NewIdentity]) -> list[bytes]:
    level = level_of(unit)
    keys = {identity.id: identity.key for identity in identities}  # a camera's identities are the tracklets
    missing = {tracklet for identity in identities for tracklet in identity.tracklets} - keys.keys()
    if missing:
        sql = "SELECT id, key FROM identity WHERE id = ANY(:ids)"
        rows = copy_out(connection, sql, {"ids": sorted(missing)}, {"id": "int8", "key": "bytea"})
        keys.update(zip(np.asarray(rows["id"]).tolist(), rows["key"], strict=True))
    return [group_hash(level, unit, [keys[tracklet] for tracklet in identity.tracklets]) for identity in identities]


def write_prototypes(connection: Connection, model_id: int, prototypes: Sequence[tuple[int, date, Prototypes]]) -> int:
    """Writes prototypes given as (identity's id, UTC day of its last_seen, vectors); returns the number of rows.

    The partitions of these days must exist.
    """
    owners: list[int] = []
    days: list[date] = []
    ordinals: list[int] = []
    kinds: list[str] = []
    weights: list[float] = []
    vectors: list[np.ndarray] = []
    for identity_id, day, one in prototypes:
        count = 1 + len(one.medoids)
        owners += [identity_id] * count
        days += [day] * count
        ordinals += range(count)
        kinds += [PrototypeKind.MEAN.value] + [PrototypeKind.MEDOID.value] * len(one.medoids)
        weights += [one.weight] + [one.weight / max(len(one.medoids), 1)] * len(one.medoids)
        vectors += [one.mean, *one.medoids]
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
