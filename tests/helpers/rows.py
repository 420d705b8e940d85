"""Rows that several tests need."""

from datetime import UTC, datetime
from hashlib import sha256

from sqlalchemy import Connection, text

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
            "INSERT INTO identity "
            "(run_id, key, persistent_id, unit, window_start, first_seen, last_seen, timed, crops, tracklets) VALUES "
            "(:run, :key, gen_random_uuid(), :unit, '2026-01-01 08:00Z', '2026-01-01 08:01Z', "
            "'2026-01-01 08:02Z', true, 1, '{}') RETURNING id"
        ),
        {"run": run, "key": sha256(name.encode()).digest(), "unit": unit},
    ).scalar_one()
    return found
