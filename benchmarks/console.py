"""Times of the console's pages in a large city, through its own server on loopback.

    python -m benchmarks.console [--people 100000] [--crops 4] [--visits 30] [--home DIR]

Fills a home with people who each pass three cameras of forty within a day: of each passage a tracklet with so many
crops, an identity of building and street, and three versions of an identity of the district, in windows of five
minutes. All crops show one picture, so that the disk holds one. Then each page is asked for so many times, one after
another, by a signed-in visitor of an open home, and by twenty visitors at once. `--home`: keeps the home, and takes it
as it is if it is filled.
"""

import argparse
import hashlib
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import uvicorn

import reid_core
from benchmarks.home import home
from pipeline.city.units import find_city, store_city
from pipeline.crops.crop_store import CropStore, Place
from pipeline.registry import register_model, use_model
from pipeline.store import Store, embedded, roles
from schemas.city_file import City, Unit
from schemas.settings import Settings
from urban_reid.console.app import make_app
from urban_reid.console.listening import listen
from urban_reid.console.visitors import new_link

_CAMERAS, _PASSAGES = 40, 3
_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_AT_ONCE = 20

# p: the person, k: the passage. Ids are made up so that rows can name each other without a look-up: a level's block of
# ids begins after that of the level below.
_FILL = """
SET session_replication_role = replica;
SET synchronous_commit = off;
UPDATE city SET kind = 'synthetic';
CREATE TEMP TABLE camera AS SELECT row_number() OVER (ORDER BY code) - 1 AS n, code, parent FROM urban_unit
    WHERE level = 'camera';
CREATE TEMP TABLE passage AS
SELECT p, k, p * {passages} + k AS t, c.code AS camera, c.parent AS building, b.parent AS street, s.parent AS district,
    timestamptz '{day}' + p * interval '22 hours' / {people} + k * interval '6 minutes' AS at
FROM generate_series(0, {people} - 1) AS p, generate_series(0, {passages} - 1) AS k
JOIN LATERAL (SELECT * FROM camera WHERE n = (p + 7 * k) % {cameras}) AS c ON true
JOIN urban_unit b ON b.code = c.parent JOIN urban_unit s ON s.code = b.parent;
ALTER TABLE passage ADD COLUMN win timestamptz;
UPDATE passage SET win = date_bin('5 minutes', at, timestamptz '{day}');
INSERT INTO run (run_key, unit, window_start, window_end, model_id, children, context)
    SELECT sha256(convert_to(unit || win, 'UTF8')), unit, win, win + interval '5 minutes', {model}, 1, 1 FROM (
        SELECT DISTINCT unit, win FROM passage, unnest(ARRAY[camera, building, street, district]) AS unit) AS u;
INSERT INTO crop (id, key, camera, captured_at, timed, source, picture, width_px, height_px, quality)
    OVERRIDING SYSTEM VALUE
    SELECT t * {crops} + n + 1, sha256(convert_to('crop ' || t || ' ' || n, 'UTF8')), camera,
        at + n * interval '200 milliseconds', true, 'benchmark', decode('{picture}', 'hex'), 64, 128, 0.5 + n * 0.01
    FROM passage, generate_series(0, {crops} - 1) AS n;
INSERT INTO identity (id, run_id, key, persistent_id, unit, window_start, first_seen, last_seen, timed, crops,
    tracklets, row_hash) OVERRIDING SYSTEM VALUE
    SELECT depth * {block} + t + 1, r.id, sha256(convert_to('identity ' || depth || ' ' || t, 'UTF8')),
        (md5(depth || ' ' || CASE depth WHEN 3 THEN p ELSE t END))::uuid, o.unit, win,
        CASE depth WHEN 3 THEN at - k * interval '6 minutes' ELSE at END, at + interval '5 seconds', true,
        {crops} * CASE depth WHEN 3 THEN k + 1 ELSE 1 END,
        CASE depth WHEN 3 THEN ARRAY(SELECT t - k + j + 1 FROM generate_series(0, k) AS j) ELSE ARRAY[t + 1] END,
        sha256(convert_to('row ' || depth || ' ' || t, 'UTF8'))
    FROM passage CROSS JOIN LATERAL (VALUES (0, camera), (1, building), (2, street), (3, district)) AS o (depth, unit)
    JOIN run r ON r.unit = o.unit AND r.window_start = passage.win AND r.superseded_at IS NULL;
INSERT INTO identity_member (identity_id, crop_id) SELECT t + 1, t * {crops} + n + 1
    FROM passage, generate_series(0, {crops} - 1) AS n;
INSERT INTO identity_member (identity_id, child_id) SELECT depth * {block} + t + 1, (depth - 1) * {block} + t - j + 1
    FROM passage, generate_series(1, 3) AS depth, generate_series(0, CASE depth WHEN 3 THEN k ELSE 0 END) AS j;
INSERT INTO match_decision (run_id, left_key, right_key, verdict, distance, appearance_log_odds, transit_log_odds,
    probability, operating_point, gap_s, left_at, right_at, row_hash)
    SELECT r.id, least(one.key, two.key), greatest(one.key, two.key), 'join', 0.4, 3, 0.5, 0.95, 0.8, 110, street,
        street, sha256(convert_to('decision ' || t, 'UTF8'))
    FROM passage JOIN run r ON r.unit = district AND r.window_start = win
    JOIN identity one ON one.id = 3 * {block} + t JOIN identity two ON two.id = 2 * {block} + t + 1 WHERE k > 0;
ANALYZE;
"""


_SOME = "SELECT persistent_id::text, last_seen, id FROM identity WHERE unit = 'd1' ORDER BY persistent_id LIMIT 500"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--crops", type=int, default=4, help="of each passage")
    parser.add_argument("--visits", type=int, default=30)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    folder = nullcontext(arguments.home) if arguments.home else home()
    with folder as path, Store.open(Settings(home=path, database_url=None), "benchmark") as store:
        if find_city(store) is None:
            began = time.perf_counter()
            fill(store, arguments.people, arguments.crops)
            print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
        tell_size(store)
        with served(store) as client, ThreadPoolExecutor(_AT_ONCE) as visitors:
            began = time.perf_counter()
            while "is being counted" in client.get("/").text:
                time.sleep(1)
            print(f"counted beside the pages in {time.perf_counter() - began:.0f} s", flush=True)
            asked = pages(store, client)
            for name, ask in asked:
                tell(name, [timed(ask) for _ in range(arguments.visits)])
            for name, ask in asked:
                seconds = [visitors.submit(timed, ask) for _ in range(5 * _AT_ONCE)]
                tell(f"{name}, {_AT_ONCE} at once", [one.result() for one in seconds])


def fill(store: Store, people: int, crops: int) -> None:
    store_city(store, city())
    register_model(store, store.settings, reid_core.DEMO_MODEL, "demo")
    model = use_model(store, "demo")
    done, encoded = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (128, 64, 3), np.uint8))
    assert done
    CropStore(store.settings).put(Place("d1", _DAY.date()), encoded.tobytes())
    values = {
        "people": people,
        "crops": crops,
        "passages": _PASSAGES,
        "cameras": _CAMERAS,
        "day": _DAY.isoformat(),
        "block": people * _PASSAGES,
        "model": model.id,
        "picture": hashlib.sha256(encoded.tobytes()).hexdigest(),
    }
    with (
        embedded.hold(store.settings.home) as server,
        closing(server.connect(roles.SUPERUSER)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(_FILL.format(**values))


def city() -> City:
    """A district of five streets, each with two buildings of four cameras."""
    units = [Unit(code="d1", name="Center")]
    for s in range(5):
        units.append(Unit(code=f"d1/s{s}"))
        for b in range(2):
            units.append(Unit(code=f"d1/s{s}/b{b}"))
            cameras = range(_CAMERAS // 10)
            units += [Unit(code=f"d1/s{s}/b{b}/c{c}", position=(s * 90.0, b * 60.0 + c * 12)) for c in cameras]
    return City(units=tuple(units))


def tell_size(store: Store) -> None:
    with store.owning() as connection:
        counts = [
            f"{connection.exec_driver_sql(f'SELECT count(*) FROM {table}').scalar_one():,} {table}"  # nosec B608
            for table in ("crop", "identity", "match_decision", "run")
        ]
    print(", ".join(counts), flush=True)


@contextmanager
def served(store: Store) -> Iterator[httpx.Client]:
    """The console on loopback, and a browser that is signed in."""
    with listen(0) as socket:
        app = make_app(store, ["127.0.0.1"])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, trust_env=False, follow_redirects=True, timeout=120) as client:
                client.get(new_link(url, app.state.console.visitors.key)).raise_for_status()
                yield client
        finally:
            server.should_exit = True
            thread.join()


Ask = Callable[[], httpx.Response]


def pages(store: Store, client: httpx.Client) -> list[tuple[str, Ask]]:
    draw = random.Random(1)  # nosec B311
    with store.owning() as connection:
        rows: Sequence[Any] = connection.exec_driver_sql(_SOME).all()

    def person() -> str:
        return f"/person/{draw.choice(rows)[0]}"

    def later_page() -> str:
        row = draw.choice(rows)
        return str(httpx.URL("/people/d1", params={"at": row[1].isoformat(), "after": row[2]}))

    pictures = [part.split('"')[0] for part in client.get("/people/d1").text.split('src="')[1:] if "pictures" in part]
    names: dict[str, Callable[[], str]] = {
        "overview": lambda: "/",
        "people of the district": lambda: "/people/d1",
        "people of the district, a later page": later_page,
        "people of a camera": lambda: f"/people/d1/s{draw.randrange(5)}/b1/c2",
        "a person": person,
        "a picture": lambda: draw.choice(pictures),
        "search form": lambda: "/search?unit=d1",
        "cameras": lambda: "/cameras",
        "runs": lambda: "/runs",
        "models": lambda: "/models",
        "audit": lambda: "/audit",
        "settings": lambda: "/settings",
    }
    return [(name, partial(_get, client, path)) for name, path in names.items()]


def _get(client: httpx.Client, path: Callable[[], str]) -> httpx.Response:
    return client.get(path())


def timed(ask: Ask) -> float:
    began = time.perf_counter()
    ask().raise_for_status()
    return time.perf_counter() - began


def tell(name: str, seconds: Sequence[float]) -> None:
    p95 = statistics.quantiles(seconds, n=20)[-1]
    print(f"{name:60} p50 {statistics.median(seconds) * 1000:6.0f} ms   p95 {p95 * 1000:6.0f} ms", flush=True)


if __name__ == "__main__":
    main()
