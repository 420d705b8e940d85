"""A home with many people, written by the database itself: what pages and commands meet in a large city.

People each pass some cameras of forty within a day, in windows of five minutes: of each passage a tracklet with its
crops, an identity of building and street, and a version of the person's identity of the district, with a decision that
joined the passage to it. One passage in fifty waits for a person as well. All crops show one picture, so that the disk
holds one.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np

import reid_core
from pipeline.city.units import store_city
from pipeline.crops.crop_store import CropStore, Place
from pipeline.registry import register_model, use_model
from pipeline.store import Store, embedded, roles
from schemas.city_file import City, Unit

CAMERAS = 40
DAY = datetime(2026, 1, 1, tzinfo=UTC)

# p: the person, k: the passage, t: the same over all people. Ids are made up so that rows can name each other without a
# look-up: a level's block of ids begins after that of the level below. No trigger runs.
_BEGIN = """
SET session_replication_role = replica;
SET synchronous_commit = off;
SET maintenance_work_mem = '1GB';
SET work_mem = '512MB';
UPDATE city SET kind = 'synthetic';
CREATE TEMP TABLE camera AS SELECT row_number() OVER (ORDER BY code) - 1 AS n, code, parent FROM urban_unit
    WHERE level = 'camera';
CREATE TEMP TABLE passage AS
SELECT p, k, p * {passages} + k AS t, c.code AS camera, c.parent AS building, b.parent AS street, s.parent AS district,
    at, date_bin('5 minutes', at, timestamptz '{day}') AS win
FROM generate_series(0, {people} - 1) AS p, generate_series(0, {passages} - 1) AS k,
    LATERAL (SELECT timestamptz '{day}' + p * interval '22 hours' / {people} + k * interval '6 minutes' AS at) AS its
JOIN camera AS c ON true JOIN urban_unit b ON b.code = c.parent JOIN urban_unit s ON s.code = b.parent
WHERE c.n = (p + 7 * k) % {cameras};
ANALYZE passage;
INSERT INTO run (run_key, unit, window_start, window_end, model_id, children, context, finished_at)
    SELECT sha256(convert_to(unit || win, 'UTF8')), unit, win, win + interval '5 minutes', {model}, 1, 1,
        win + interval '6 minutes' FROM (
        SELECT DISTINCT unit, win FROM passage, unnest(ARRAY[camera, building, street, district]) AS unit) AS u;
ANALYZE run;
"""
_ROWS = {
    "crop": """
INSERT INTO crop (id, key, camera, captured_at, timed, source, picture, width_px, height_px, quality)
    OVERRIDING SYSTEM VALUE
    SELECT t * {crops} + n + 1, sha256(convert_to('crop ' || t || ' ' || n, 'UTF8')), camera,
        at + n * interval '200 milliseconds', true, 'benchmark', decode('{picture}', 'hex'), 64, 128, 0.5 + n * 0.01
    FROM passage, generate_series(0, {crops} - 1) AS n""",
    "identity": """
INSERT INTO identity (id, run_id, key, persistent_id, unit, window_start, first_seen, last_seen, timed, crops,
    tracklets, row_hash) OVERRIDING SYSTEM VALUE
    SELECT depth * {block} + t + 1, r.id, sha256(convert_to('identity ' || depth || ' ' || t, 'UTF8')),
        (md5(depth || ' ' || CASE depth WHEN 3 THEN p ELSE t END))::uuid, o.unit, win,
        CASE depth WHEN 3 THEN at - k * interval '6 minutes' ELSE at END, at + interval '5 seconds', true,
        {crops} * CASE depth WHEN 3 THEN k + 1 ELSE 1 END,
        CASE depth WHEN 3 THEN ARRAY(SELECT t - k + j + 1 FROM generate_series(0, k) AS j) ELSE ARRAY[t + 1] END,
        sha256(convert_to('row ' || depth || ' ' || t, 'UTF8'))
    FROM passage CROSS JOIN LATERAL (VALUES (0, camera), (1, building), (2, street), (3, district)) AS o (depth, unit)
    JOIN run r ON r.unit = o.unit AND r.window_start = passage.win AND r.superseded_at IS NULL""",
    "identity_member": """
INSERT INTO identity_member (identity_id, crop_id, child_id)
    SELECT t + 1, t * {crops} + n + 1, NULL FROM passage, generate_series(0, {crops} - 1) AS n
    UNION ALL
    SELECT depth * {block} + t + 1, NULL, (depth - 1) * {block} + t - j + 1
    FROM passage, generate_series(1, 3) AS depth, generate_series(0, CASE depth WHEN 3 THEN k ELSE 0 END) AS j""",
    "match_decision": """
INSERT INTO match_decision (run_id, left_key, right_key, verdict, distance, appearance_log_odds, transit_log_odds,
    probability, operating_point, gap_s, left_at, right_at, row_hash)
    SELECT r.id, least(one.key, two.key), greatest(one.key, two.key), verdict::verdict, 0.4, 3, 0.5,
        CASE verdict WHEN 'join' THEN 0.95 ELSE 0.75 END, 0.8, 110, street, street,
        sha256(convert_to('decision ' || verdict || t, 'UTF8'))
    FROM passage CROSS JOIN LATERAL (VALUES ('join', t), ('review', t - {passages})) AS v (verdict, other)
    JOIN run r ON r.unit = district AND r.window_start = win
    JOIN identity one ON one.id = 3 * {block} + other JOIN identity two ON two.id = 2 * {block} + t + 1
    WHERE CASE verdict WHEN 'join' THEN k > 0 ELSE other > 0 AND t % 50 = 7 END""",
}
# A row costs a look into each index of its table; made afterwards, an index is sorted once. The catalog says that no
# index takes rows, and making them again says that each does.
_WITHOUT_INDEXES = "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indrelid = '{table}'::regclass"


def is_filled(store: Store) -> bool:
    with store.owning() as connection:
        return bool(connection.exec_driver_sql("SELECT EXISTS (SELECT FROM identity)").scalar_one())


def fill(store: Store, people: int, passages: int, crops: int) -> None:
    """Fills an empty home with so many people, each with so many passages, each with so many crops. All or nothing."""
    began = time.perf_counter()
    store_city(store, city())
    register_model(store, store.settings, reid_core.DEMO_MODEL, "demo")
    model = use_model(store, "demo")
    done, encoded = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (128, 64, 3), np.uint8))
    assert done
    CropStore(store.settings).put(Place("d1", DAY.date()), encoded.tobytes())
    values = {
        "people": people,
        "crops": crops,
        "passages": passages,
        "cameras": CAMERAS,
        "day": DAY.isoformat(),
        "block": people * passages,
        "model": model.id,
        "picture": hashlib.sha256(encoded.tobytes()).hexdigest(),
    }
    with _superuser(store) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_BEGIN.format(**values))
        for table, rows in _ROWS.items():
            cursor.execute(_WITHOUT_INDEXES.format(table=table))
            cursor.execute(rows.format(**values))
            print(f"{time.perf_counter() - began:5.0f} s: {cursor.rowcount:,} rows of {table}", flush=True)
            cursor.execute(f"REINDEX TABLE {table}; ANALYZE {table}")
        cursor.execute("SELECT open_pairs(ARRAY(SELECT id FROM match_decision WHERE verdict = 'review'))")
    with _superuser(store) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("VACUUM (ANALYZE)")  # as the server does by itself in a city that grew slowly
    print(f"{time.perf_counter() - began:5.0f} s: filled", flush=True)


@contextmanager
def _superuser(store: Store) -> Iterator[Any]:
    with embedded.hold(store.settings.home) as server, closing(server.connect(roles.SUPERUSER)) as connection:
        yield connection


def city() -> City:
    """A district of five streets, each with two buildings of four cameras."""
    units = [Unit(code="d1", name="Center")]
    for s in range(5):
        units.append(Unit(code=f"d1/s{s}"))
        for b in range(2):
            units.append(Unit(code=f"d1/s{s}/b{b}"))
            cameras = range(CAMERAS // 10)
            units += [Unit(code=f"d1/s{s}/b{b}/c{c}", position=(s * 90.0, b * 60.0 + c * 12)) for c in cameras]
    return City(units=tuple(units))


def tell_size(store: Store) -> None:
    with store.owning() as connection:
        counts = [
            f"{connection.exec_driver_sql(f'SELECT count(*) FROM {table}').scalar_one():,} {table}"  # nosec B608
            for table in ("crop", "identity", "match_decision", "run")
        ]
        size: int = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    print(f"{', '.join(counts)}; {size / 2**30:.1f} GB", flush=True)
