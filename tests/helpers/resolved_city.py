"""Writes a resolved city by hand: any tracklets, in any groups at each level."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, text

from pipeline.store import Store, partitions
from pipeline.store.copy import copy_in
from schemas.arrays import Floats, Ints
from schemas.levels import Level
from schemas.times import from_us, to_us

DAY = datetime(2026, 1, 1, tzinfo=UTC)
#: As `copy_in` takes them: name -> (type, values).
Columns = dict[str, tuple[str, Sequence[Any] | np.ndarray]]
_DEPTH = {Level.CAMERA: 4, Level.BUILDING: 3, Level.STREET: 2, Level.DISTRICT: 1}


def key(*parts: object) -> bytes:
    return sha256(" ".join(map(str, parts)).encode()).digest()


def persistent_id(level: Level, number: int) -> UUID:
    return UUID(bytes=key("persistent", level, number)[:16])


def write_tracklets(
    store: Store,
    model: int,
    camera: Sequence[str],
    start_s: Ints,
    end_s: Ints,
    crops: Ints,
    truth: Sequence[str | None],
    features: Floats,
) -> Ints:
    """(n,) Tracklet ids. Times are seconds of `DAY`; the crops of tracklet i are a second apart, on track i.

    City and model must be in the store.
    """
    n = len(camera)
    with store.begin() as connection:
        partitions.ensure_partitions(connection, "prototype", model, [DAY.date()])
    tracklets = write_level(
        store, model, Level.CAMERA, camera, np.arange(n), None, start_s=start_s, end_s=end_s, crops=crops
    )
    tracklet = np.repeat(np.arange(n), crops)
    turn = np.arange(len(tracklet)) - np.repeat(np.cumsum(crops) - crops, crops)
    keys = [key("crop", i, t) for i, t in zip(tracklet.tolist(), turn.tolist(), strict=True)]
    count = len(keys)
    with store.begin() as connection:
        ids = _ids(connection, "crop", count)
        columns: Columns = {
            "id": ("int8", ids),
            "key": ("bytea", keys),
            "camera": ("text", [camera[i] for i in tracklet.tolist()]),
            "captured_at": ("timestamptz", to_us(DAY) + (start_s[tracklet] + turn) * 1_000_000),
            "timed": ("bool", np.ones(count, bool)),
            "source": ("text", ["test"] * count),
            "track": ("text", [str(i) for i in tracklet]),
            "picture": ("bytea", keys),
            "width_px": ("int4", np.full(count, 64)),
            "height_px": ("int4", np.full(count, 128)),
            "quality": ("float4", np.full(count, 0.5)),
        }
        copy_in(connection, "crop", columns)
        known = [at for at, i in enumerate(tracklet.tolist()) if truth[i] is not None]
        copy_in(
            connection,
            "crop_truth",
            {"crop_id": ("int8", ids[known]), "truth": ("text", [truth[i] for i in tracklet[known].tolist()])},
        )
        members: Columns = {
            "identity_id": ("int8", tracklets[tracklet]),
            "child_id": ("int8", [None] * count),
            "crop_id": ("int8", ids.tolist()),
        }
        copy_in(connection, "identity_member", members)
        vectors: Columns = {
            "model_id": ("int4", np.full(n, model)),
            "day": ("date", [DAY.date()] * n),
            "identity_id": ("int8", tracklets),
            "ordinal": ("int2", np.zeros(n, int)),
            "kind": ("enum", ["mean"] * n),
            "weight": ("float4", np.ones(n)),
            "v": ("halfvec", features),
        }
        copy_in(connection, "prototype", vectors)
    return tracklets


def write_level(
    store: Store,
    model: int,
    level: Level,
    camera: Sequence[str],
    group: Ints,
    tracklets: Ints | None,
    *,
    start_s: Ints | None = None,
    end_s: Ints | None = None,
    crops: Ints | None = None,
    window: int = 0,
    renamed: Mapping[int, int] | None = None,
) -> Ints:
    """(m,) Ids of the identities of m groups, in order of their numbers, in one run per unit.

    tracklets: (n,) the ids of the members, None to write tracklets themselves. renamed: group number -> number that the
    persistent id is made from instead.
    """
    units = ["/".join(code.split("/")[: _DEPTH[level]]) for code in camera]
    numbers, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    start_us = to_us(DAY) + window * 300_000_000
    with store.begin() as connection:
        runs = {}
        for unit in sorted(set(units)):
            sql = (
                "INSERT INTO run (run_key, unit, window_start, window_end, model_id, children, context) "
                "VALUES (:key, :unit, :start, :end, :model, 0, 0) RETURNING id"
            )
            times = {"start": from_us(start_us), "end": from_us(start_us + 300_000_000)}
            at = {"key": key("run", unit, window), "unit": unit, "model": model, **times}
            runs[unit] = connection.execute(text(sql), at).scalar_one()
        m = len(numbers)
        ids = _ids(connection, "identity", m)
        order = np.argsort(inverse, kind="stable")
        held = [ids[i : i + 1] for i in range(m)]
        if tracklets is not None:
            held = np.split(tracklets[order], np.cumsum(np.bincount(inverse))[:-1])
        seen = [to_us(DAY) + (np.zeros(m, int) if s is None else s) * 1_000_000 for s in (start_s, end_s)]
        columns: Columns = {
            "id": ("int8", ids),
            "run_id": ("int8", np.array([runs[units[i]] for i in first])),
            "key": ("bytea", [key(level, number) for number in numbers.tolist()]),
            "row_hash": ("bytea", [key("row", level, number) for number in numbers.tolist()]),
            "persistent_id": ("uuid", [persistent_id(level, (renamed or {}).get(i, i)) for i in numbers.tolist()]),
            "unit": ("text", [units[i] for i in first]),
            "window_start": ("timestamptz", np.full(m, start_us)),
            "first_seen": ("timestamptz", seen[0]),
            "last_seen": ("timestamptz", seen[1]),
            "timed": ("bool", np.ones(m, bool)),
            "crops": ("int4", np.ones(m, int) if crops is None else crops),
            "tracklets": ("int8[]", held),
            "retired": ("bool", np.zeros(m, bool)),
        }
        copy_in(connection, "identity", columns)
    return ids


def _ids(connection: Connection, table: str, count: int) -> Ints:
    sql = f"SELECT nextval(pg_get_serial_sequence('{table}', 'id')) FROM generate_series(1, :n)"
    return np.array(connection.execute(text(sql), {"n": count}).scalars().all(), dtype=np.int64)
