"""Rows that several tests write."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import numpy as np
from sqlalchemy import Connection, text

from pipeline.store import Store
from pipeline.store.copy import copy_in
from pipeline.store.copy_format import Values
from pipeline.store.partitions import ensure_partitions

Row = dict[str, tuple[str, Values]]
CAMERA = "d1/s1/b1/c1"


def insert_city(connection: Connection) -> None:
    """Two buildings of one street; three cameras in the first, one in the second."""
    codes = ["d1", "d1/s1", "d1/s1/b1", "d1/s1/b2", *(f"d1/s1/b1/c{at}" for at in (1, 2, 3)), "d1/s1/b2/c1"]
    connection.execute(text("INSERT INTO urban_unit (code) VALUES (:code)"), [{"code": code} for code in codes])


def insert_model(connection: Connection, dims: int = 4, name: str = "small") -> int:
    found: int = connection.execute(
        text("INSERT INTO model (name, digest, dims, card) VALUES (:name, :digest, :dims, '{}') RETURNING id"),
        {"name": name, "digest": sha256(name.encode()).digest(), "dims": dims},
    ).scalar_one()
    return found


def insert_crop(
    connection: Connection, camera: str = CAMERA, moment: datetime = datetime(2026, 1, 1, 8, tzinfo=UTC)
) -> int:
    key = sha256(f"{camera} {moment}".encode()).digest()
    found: int = connection.execute(
        text(
            "INSERT INTO crop (key, camera, captured_at, timed, source, picture, width_px, height_px, quality) "
            "VALUES (:key, :camera, :moment, true, 'test', :key, 64, 128, 0.5) RETURNING id"
        ),
        {"key": key, "camera": camera, "moment": moment},
    ).scalar_one()
    return found


def insert_run(connection: Connection, model: int, unit: str = "d1/s1/b1", name: str = "run") -> int:
    found: int = connection.execute(
        text(
            "INSERT INTO run (run_key, unit, window_start, window_end, model_id, children, context) "
            "VALUES (:key, :unit, '2026-01-01 08:00Z', '2026-01-01 08:05Z', :model, 0, 0) RETURNING id"
        ),
        {"key": sha256(name.encode()).digest(), "unit": unit, "model": model},
    ).scalar_one()
    return found


def insert_identity(connection: Connection, run: int, name: str = "somebody", unit: str = "d1/s1/b1") -> int:
    found: int = connection.execute(
        text(
            "INSERT INTO identity (run_id, key, row_hash, persistent_id, unit, window_start, first_seen, last_seen, "
            "timed, crops, tracklets) VALUES (:run, :key, :key, gen_random_uuid(), :unit, '2026-01-01 08:00Z', "
            "'2026-01-01 08:01Z', '2026-01-01 08:02Z', true, 1, '{}') RETURNING id"
        ),
        {"run": run, "key": sha256(name.encode()).digest(), "unit": unit},
    ).scalar_one()
    return found


def fill_standing(connect: Callable[[], Any]) -> None:
    """Writes what a standing search has raised, after `fill`, past the rules. connect: as a superuser."""
    connection = connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(_STANDING)
    connection.close()


_STANDING = """
INSERT INTO probe (picture, uploaded_by) VALUES (sha256('p'), 'anna');
INSERT INTO standing_search (operator, reason, units, bar, from_time, to_time, approved_at)
    VALUES ('anna', 'lost child', '{d1}', 0.5, '2026-01-01 07:00Z', '2026-01-02 07:00Z', now());
INSERT INTO standing_picture (standing_id, crop_id, probe_id) SELECT s.id, c.id, NULL FROM standing_search s, crop c
    UNION ALL SELECT s.id, NULL, p.id FROM standing_search s, probe p;
INSERT INTO search_request (operator, reason, unit, crop_id, top, model_id, standing_id, standing_run, attributes)
    SELECT 'anna', 'lost child', 'd1', c.id, 5, m.id, s.id, 1, '{red top}' FROM standing_search s, crop c, model m;
INSERT INTO search_example (request_id, probe_id, is_person) SELECT r.id, p.id, true FROM search_request r, probe p;
INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance)
    SELECT r.id, 1, i.id, m.id, 0.1 FROM search_request r, identity i, model m;
INSERT INTO standing_passage (standing_id, tracklet, request_id, rank, last_frame_at, raised_at)
    SELECT s.id, i.persistent_id, r.id, 1, now(), now() FROM standing_search s, search_request r, identity i;
INSERT INTO standing_message (request_id, rank) SELECT id, 1 FROM search_request;
INSERT INTO match_decision (run_id, left_key, right_key, row_hash, verdict, distance, transit_log_odds, left_at,
    right_at) SELECT r.id, sha256('b'), sha256('a'), sha256('c'), 'review', 0.1, 0, 'd1', 'd1' FROM run r;
INSERT INTO review_open (decision_id, run_id, unit, window_start, window_end, worth)
    SELECT d.id, r.id, r.unit, r.window_start, r.window_end, 1 FROM match_decision d JOIN run r ON r.id = d.run_id;
"""


def fill(store: Store) -> None:
    """Writes rows into most tables: a city, a model, a crop with its vector, an identity with its history."""
    day = date(2026, 1, 1)
    with store.begin() as connection:
        insert_city(connection)
        connection.execute(text("INSERT INTO walk VALUES ('d1/s1/b1', 'd1/s1/b2', 30)"))
        model = insert_model(connection)
        crop = insert_crop(connection)
        run = insert_run(connection, model)
        identity = insert_identity(connection, run)
        connection.execute(
            text("INSERT INTO training_request (operator, reason, parameters) VALUES ('anna', 'a test', '{}')")
        )
        camera = {"camera": CAMERA, "address": "rtsp://10.0.0.5/stream"}
        connection.execute(
            text("INSERT INTO camera_feed (camera, address, looks_per_s) VALUES (:camera, :address, 5)"), camera
        )
        connection.execute(
            text("INSERT INTO camera_health (camera, state, at) VALUES (:camera, 'down', now())"), camera
        )
        connection.execute(text("INSERT INTO camera_host (name, looks_per_s, seen_at) VALUES ('one', 40, now())"))
        connection.execute(
            text(
                "INSERT INTO camera_lease (camera, host, dealt_at, holder, until) "
                "VALUES (:camera, 'one', now(), 'one', now())"
            ),
            camera,
        )
        connection.execute(
            text("INSERT INTO camera_outage (camera, down_at, reason) VALUES (:camera, now(), 'stalled')"), camera
        )
        connection.execute(
            text(
                "INSERT INTO camera_file (camera, path, bytes, modified_ns, state) "
                "VALUES (:camera, '/srv/plaza.mp4', 1, 1, 'refused')"
            ),
            camera,
        )
        batch = connection.scalar(
            text(
                "INSERT INTO ingest_batch (digest, door, name, options, operator) "
                "VALUES (decode(repeat('07', 32), 'hex'), 'video', 'plaza.mp4', '{}', 'anna') RETURNING id"
            )
        )
        connection.execute(
            text(
                "INSERT INTO context_frame (camera, track, captured_at, picture, width_px, height_px, batch_id) "
                "VALUES (:camera, '1', now(), decode(repeat('07', 32), 'hex'), 640, 480, :batch)"
            ),
            camera | {"batch": batch},
        )
        event = text("INSERT INTO identity_event (run_id, kind, persistent_id, other_id) VALUES (:run, :kind, :a, :b)")
        for kind, other in (("create", None), ("split", uuid4()), ("move", uuid4()), ("retire", None)):
            connection.execute(event, {"run": run, "kind": kind, "a": uuid4(), "b": other})
        ensure_partitions(connection, "crop_embedding", model, [day])
        ensure_partitions(connection, "prototype", model, [day])
        vector: Row = {"model_id": ("int4", [model]), "day": ("date", [day]), "v": ("halfvec", np.ones((1, 4)))}
        copy_in(connection, "crop_embedding", vector | {"crop_id": ("int8", [crop])})
        mean: Row = {"ordinal": ("int2", [0]), "kind": ("enum", ["mean"]), "weight": ("float4", [1.0])}
        copy_in(connection, "prototype", vector | mean | {"identity_id": ("int8", [identity])})
