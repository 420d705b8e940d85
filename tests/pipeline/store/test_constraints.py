"""Rows that the tables refuse from every role. One database; each test's transaction is rolled back."""

from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from pipeline.store import Store, embedded
from pipeline.store.partitions import ensure_partitions
from schemas.association import EventKind
from tests.helpers.homes import fresh_settings
from tests.helpers.rows import CAMERA, insert_city, insert_crop, insert_identity, insert_model, insert_run

LOW, HIGH = sorted(sha256(name).digest() for name in (b"left", b"right"))


@pytest.fixture(scope="module")
def store(server: embedded.EmbeddedServer) -> Iterator[Store]:
    with fresh_settings(server) as fresh, Store.open(fresh) as opened:
        yield opened


@pytest.fixture
def connection(store: Store) -> Iterator[Connection]:
    """A transaction with a city in it."""
    with store.engine.connect() as opened:
        insert_city(opened)
        yield opened


def violates(constraint: str) -> Any:
    return pytest.raises(DBAPIError, match=constraint)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO urban_unit (code) VALUES ('d1/s9/b1')", "urban_unit_parent_fkey"),
        ("INSERT INTO urban_unit (code) VALUES ('d1/s1/b9/c1')", "urban_unit_parent_fkey"),
        ("INSERT INTO urban_unit (code) VALUES ('d1/s1/b1/c1/x')", 'column "level" .* violates not-null'),
        ("INSERT INTO urban_unit (code) VALUES ('D1')", "urban_unit_code_check"),
        ("INSERT INTO urban_unit (code) VALUES ('d1/')", "urban_unit_code_check"),
        ("INSERT INTO urban_unit (code) VALUES ('d1/s1')", "urban_unit_pkey"),
        ("INSERT INTO urban_unit (code, source) VALUES ('d1/s2', 'c1')", "urban_unit_check"),
        ("DELETE FROM urban_unit WHERE code = 'd1/s1'", "urban_unit_parent_fkey"),
        ("INSERT INTO camera_overlap VALUES ('d1/s1/b1/c1', 'd1/s1/b2/c1')", "camera_overlap_check"),
        ("INSERT INTO camera_overlap VALUES ('d1/s1/b1/c2', 'd1/s1/b1/c1')", "camera_overlap_check"),
        ("INSERT INTO camera_overlap VALUES ('d1/s1/b1', 'd1/s1/b2')", "camera_overlap_check"),
        ("INSERT INTO walk VALUES ('d1/s1/b1', 'd1/s1/b2/c1', 3)", "walk_check"),
        ("INSERT INTO walk VALUES ('d1/s1/b1', 'd1/s1/b2', -1)", "walk_shortest_s_check"),
        ("INSERT INTO watermark (unit) VALUES ('d1/s7')", "watermark_unit_fkey"),
        ("INSERT INTO audit (actor, action) VALUES (' ', 'search.start')", "audit_actor_check"),
        ("INSERT INTO city (timezone, digest) VALUES ('UTC', 'short')", "content_key_check"),
        ("INSERT INTO model (name, digest, dims, card) VALUES ('m', sha256('m'), 0, '{}')", "model_dims_check"),
    ],
)
def test_rows_that_the_city_refuses(connection: Connection, statement: str, constraint: str) -> None:
    with violates(constraint):
        connection.execute(text(statement))


def test_rows_that_the_city_accepts(connection: Connection) -> None:
    connection.execute(text("INSERT INTO camera_overlap VALUES ('d1/s1/b1/c1', 'd1/s1/b1/c2')"))
    connection.execute(text("INSERT INTO walk VALUES ('d1/s1/b1', 'd1/s1/b2', 30)"))
    found = connection.execute(text("SELECT level, parent FROM urban_unit ORDER BY code")).all()
    assert [tuple(row) for row in found[:3]] == [("district", None), ("street", "d1"), ("building", "d1/s1")]
    assert tuple(found[-1]) == ("camera", "d1/s1/b2")


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"camera": "d1/s1/b1"}, "crop_camera_check"),
        ({"camera": "d1/s1/b1/c9"}, "crop_camera_fkey"),
        ({"quality": 1.5}, "crop_quality_check"),
        ({"width_px": 0}, "crop_width_px_check"),
        ({"box": [1.0, 2.0, 3.0]}, "crop_box_check"),
        ({"key": b"short"}, "content_key_check"),
        ({}, "crop_key_key"),
    ],
)
def test_crops_that_are_refused(connection: Connection, change: dict[str, Any], constraint: str) -> None:
    row = {"key": LOW, "camera": CAMERA, "width_px": 64, "quality": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}
    insert = text(
        "INSERT INTO crop (key, camera, captured_at, timed, source, box, picture, width_px, height_px, quality) "
        "VALUES (:key, :camera, '2026-01-01Z', true, '', :box, sha256('p'), :width_px, 128, :quality)"
    )
    connection.execute(insert, row | ({"key": HIGH} if change else {}))
    with violates(constraint):
        connection.execute(insert, row | change)


def decide(connection: Connection, run: int, **change: Any) -> None:
    row: dict[str, Any] = {
        "run_id": run,
        "left_key": LOW,
        "right_key": HIGH,
        "row_hash": LOW,
        "left_at": "d1/s1/b1/c1",
        "right_at": "d1/s1/b1/c2",
        "verdict": "join",
        "distance": 0.3,
        "appearance_log_odds": 2.0,
        "transit_log_odds": 0.0,
        "probability": 0.9,
        "operating_point": 0.8,
    } | change
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO match_decision ({', '.join(row)}) VALUES ({values})"), row)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"left_key": HIGH, "right_key": LOW}, "match_decision_check"),
        ({"left_key": LOW, "right_key": LOW}, "match_decision_check"),
        ({"probability": None}, "match_decision_check"),
        ({"operating_point": None}, "match_decision_check"),
        ({"probability": None, "operating_point": None}, "match_decision_check"),
        ({"probability": None, "operating_point": None, "verdict": "apart"}, "match_decision_check"),
        ({"probability": 1.1}, "match_decision_probability_check"),
        ({"distance": float("nan")}, "match_decision_distance_check"),
        ({"distance": -0.1}, "match_decision_distance_check"),
        ({"left_at": "d1/s9"}, "match_decision_left_at_fkey"),
        ({"verdict": "maybe"}, "invalid input value for enum verdict"),
        ({}, "match_decision_run_id_left_key_right_key_key"),
    ],
)
def test_decisions_that_are_refused(connection: Connection, change: dict[str, Any], constraint: str) -> None:
    model = insert_model(connection)
    run, second = insert_run(connection, model), insert_run(connection, model, "d1/s1/b2", "second")
    decide(connection, run)
    with violates(constraint):
        decide(connection, second if change else run, **change)


def test_a_decision_without_a_calibration_is_left_to_a_person(connection: Connection) -> None:
    run = insert_run(connection, insert_model(connection))
    decide(connection, run, probability=None, operating_point=None, appearance_log_odds=None, verdict="review")


def test_a_unit_and_window_have_one_current_run(connection: Connection) -> None:
    model = insert_model(connection)
    run = insert_run(connection, model)
    with violates("run_current"), connection.begin_nested():
        insert_run(connection, model, name="another")
    with violates("run_once"), connection.begin_nested():
        insert_run(connection, model, unit="d1/s1/b2")
    connection.execute(text("UPDATE run SET superseded_at = now() WHERE id = :id"), {"id": run})
    insert_run(connection, model)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("(:parent, :child, :crop)", "identity_member_check"),
        ("(:parent, NULL, NULL)", "identity_member_check"),
        ("(:parent, :child, NULL)", "identity_member_identity_id_child_id_crop_id_idx"),
    ],
)
def test_a_member_is_one_child_or_one_crop(connection: Connection, values: str, constraint: str) -> None:
    run = insert_run(connection, insert_model(connection))
    row = {name: insert_identity(connection, run, name) for name in ("parent", "child")}
    row["crop"] = insert_crop(connection)
    connection.execute(text("INSERT INTO identity_member VALUES (:parent, :child, NULL), (:parent, NULL, :crop)"), row)
    with violates(constraint):
        connection.execute(text(f"INSERT INTO identity_member VALUES {values}"), row)


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_names_the_other_identity_that_took_part(connection: Connection, kind: EventKind) -> None:
    alone = kind in (EventKind.CREATE, EventKind.ATTACH, EventKind.RETIRE)
    run = insert_run(connection, insert_model(connection))
    insert = text(
        "INSERT INTO identity_event (run_id, kind, persistent_id, other_id) VALUES (:run, :kind, :this, :other)"
    )
    row = {"run": run, "kind": kind.value, "this": uuid4()}
    connection.execute(insert, row | {"other": None if alone else uuid4()})
    with violates("identity_event_check"):
        connection.execute(insert, row | {"other": uuid4() if alone else None})


def test_one_model_is_in_use(connection: Connection) -> None:
    insert_model(connection)
    insert_model(connection, name="other")
    with violates("model_in_use"):
        connection.execute(text("UPDATE model SET in_use = true"))


def test_an_embedding_lies_on_the_day_of_its_crop(connection: Connection) -> None:
    """So that deleting a crop looks at one partition, and dropping a day's partition drops the vectors of its crops."""
    model, crop = insert_model(connection), insert_crop(connection)
    ensure_partitions(connection, "crop_embedding", model, [date(2026, 1, 1), date(2026, 1, 2)])
    insert = text("INSERT INTO crop_embedding VALUES (:model, :day, :crop, '[1,2,3,4]')")
    connection.execute(insert, {"model": model, "day": date(2026, 1, 1), "crop": crop})
    with violates("crop_embedding_day_crop_id_fkey"):
        connection.execute(insert, {"model": model, "day": date(2026, 1, 2), "crop": crop})
