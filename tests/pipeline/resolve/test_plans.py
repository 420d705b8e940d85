"""The queries of a window use an index: their cost depends on the window, not on the size of the city."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, event, text

from pipeline.city.units import store_city
from pipeline.registry import ModelRow
from pipeline.resolve import camera, features, persistent_ids, read, runs, units_within
from pipeline.resolve.write import mark_parent, supersede
from pipeline.store import Store, roles, statistics
from pipeline.store.copy import copy_out
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.partitions import ensure_partitions
from pipeline.store.statistics import analyze_grown
from pipeline.store.user_supplied import supplied_url
from reid_core.serving.local import LocalCore
from schemas.cards import ModelCard
from schemas.city_file import City
from schemas.settings import AssociationSettings
from tests.helpers.homes import fresh_settings
from tests.helpers.resolved_city import DAY
from tests.helpers.rows import insert_model
from tests.helpers.thin_town import ThinTown, crowd

STREETS, BUILDINGS, CAMERAS, WINDOWS = 3, 4, 3, 60
CODES = [
    "d1",
    *(f"d1/s{s}" for s in range(STREETS)),
    *(f"d1/s{s}/b{b}" for s in range(STREETS) for b in range(BUILDINGS)),
    *(f"d1/s{s}/b{b}/c{c}" for s in range(STREETS) for b in range(BUILDINGS) for c in range(CAMERAS)),
]
#: Tables that grow as long as the city is in use.
GROWING = {
    "run",
    "identity",
    "identity_member",
    "identity_event",
    "prototype",
    "match_decision",
    "crop",
    "crop_embedding",
}
WINDOW = timedelta(minutes=5)


def _no_network(_: object) -> np.ndarray:
    raise AssertionError("no picture may be embedded")


CORE = LocalCore(
    ModelCard(name="small", engine="none", dims=4, architecture="foreign", baseline="foreign", sha256={}),
    _no_network,
    None,
    batch_size=1,
)

#: Ten tracklets for each camera and window; ten identities for each unit above it, half of them back in every window.
#: Every tenth run was superseded. Every identity has one member.
_FILL = """
INSERT INTO run (run_key, unit, window_start, window_end, model_id, children, context, superseded_at)
SELECT sha256(convert_to(concat_ws(' ', code, w, s), 'UTF8')), code, :day + w * interval '5 min',
    :day + (w + 1) * interval '5 min', :model, 10, 10, CASE WHEN s = 1 THEN now() END
FROM urban_unit, generate_series(0, :windows - 1) AS w, generate_series(0, 1) AS s WHERE s = 0 OR w % 10 = 0;
INSERT INTO identity
    (run_id, key, row_hash, persistent_id, unit, window_start, first_seen, last_seen, timed, crops, tracklets)
SELECT r.id, sha256(convert_to(concat_ws(' ', r.id, n), 'UTF8')), sha256(''),
    md5(concat_ws(' ', r.unit, n, CASE WHEN r.level = 'camera' OR n % 2 = 0 THEN r.window_start END))::uuid,
    r.unit, r.window_start, r.window_start, r.window_start + n * interval '20 s', true, 1, '{}'
FROM run r, generate_series(1, 10) AS n;
INSERT INTO identity_member (identity_id, child_id)
SELECT i.id, c.id FROM identity i JOIN urban_unit u ON u.parent = i.unit AND right(u.code, 1) = '0'
JOIN run r ON r.unit = u.code AND r.window_start = i.window_start AND r.superseded_at IS NULL
JOIN identity c ON c.run_id = r.id AND c.last_seen = i.last_seen;
INSERT INTO crop (key, camera, captured_at, timed, source, picture, width_px, height_px, quality)
SELECT key, unit, last_seen, true, 'test', key, 1, 1, 0.5 FROM identity WHERE level = 'camera';
INSERT INTO identity_member (identity_id, crop_id)
SELECT i.id, c.id FROM identity i JOIN crop c ON c.key = i.key WHERE i.level = 'camera';
INSERT INTO crop_embedding (model_id, day, crop_id, v)
SELECT :model, (captured_at AT TIME ZONE 'UTC')::date, id, '[1,2,3,4]' FROM crop;
INSERT INTO prototype (model_id, day, identity_id, ordinal, kind, weight, v)
SELECT :model, (last_seen AT TIME ZONE 'UTC')::date, id, o,
    (CASE WHEN o = 0 THEN 'mean' ELSE 'medoid' END)::prototype_kind, 1, '[1,2,3,4]'
FROM identity, generate_series(0, 2) AS o;
"""


@pytest.fixture(scope="module")
def filled(server: EmbeddedServer) -> Iterator[tuple[Store, int]]:
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        owner = server.connect(roles.OWNER, supplied_url(settings).database or "")
        with owner, owner.cursor() as cursor:
            for table in ("identity", "identity_member"):  # the server itself must not analyze them
                cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        owner.close()
        store_city(store, City.model_validate({"units": [{"code": code} for code in CODES]}))
        with store.begin() as connection:
            model = insert_model(connection)
            for family in ("prototype", "crop_embedding"):
                ensure_partitions(connection, family, model, [DAY.date()])
        with store.begin() as connection:
            at = {"model": model, "day": DAY, "windows": WINDOWS}
            for statement in filter(str.strip, _FILL.split(";")):
                connection.execute(text(statement), {name: at[name] for name in at if f":{name}" in statement})
        yield store, model


def scanned(plan: Mapping[str, Any]) -> Iterator[str]:
    """Names of the tables that a plan reads completely; a partition under the name of its table."""
    if plan["Node Type"] == "Seq Scan":
        name = plan["Relation Name"]
        yield name.split("_m")[0] if name.startswith(("prototype_m", "crop_embedding_m")) else name
    for below in plan.get("Plans", ()):
        yield from scanned(below)


def statements(connection: Connection, monkeypatch: pytest.MonkeyPatch, model: int) -> list[tuple[str, Any]]:
    """The statements, with parameters, that a street's and a camera's windows send."""
    found: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        found.append((statement, parameters))

    def noting(connection: Connection, sql: str, params: Mapping[str, Any], types: Mapping[str, str]) -> Any:
        found.append((str(text(sql).compile(dialect=connection.dialect)), dict(params)))
        return copy_out(connection, sql, params, types)

    for module in (read, features):
        monkeypatch.setattr(module, "copy_out", noting)
    event.listen(connection, "before_cursor_execute", note)
    numbers = {code: i for i, code in enumerate(CODES)}
    street, buildings = "d1/s1", [f"d1/s1/b{b}" for b in range(BUILDINGS)]
    at = DAY + 40 * WINDOW
    read.read_windows(connection, street, buildings, at)
    context = read.read_context(connection, street, at, at - 6 * WINDOW, model, numbers)
    versions = read.read_versions(connection, buildings, at, at + WINDOW, model, numbers)
    children = versions[at]
    read.read_members(connection, [one.id for one in context[:20]], model, numbers)
    read.read_member_ids(connection, [one.id for one in context])
    earlier = persistent_ids.read_earlier_ids(connection, street, [one.persistent_id for one in children])
    persistent_ids.read_ids_in_use(connection, street, [id_ for ids in earlier.values() for id_ in ids], at)
    runs.read_current_runs(connection, street, at, at + 4 * WINDOW)
    row = ModelRow(model, "small", b"", 4, CORE.card, False)
    crops = camera.read_crops(connection, "d1/s1/b1/c1", at, CORE, row, AssociationSettings())
    persistent_ids.TrackletIds(connection, "d1/s1/b1/c1", crops.ids, [at])
    supersede(connection, street, [at])
    mark_parent(connection, street, at)
    assert len(context) > 20 and len(children) == 10 * BUILDINGS and earlier and crops.ids
    event.remove(connection, "before_cursor_execute", note)
    return found


def sequential_scans(store: Store, model: int) -> dict[str, set[str]]:
    """The growing tables that are read completely, by statement."""
    scans = {}
    with store.begin() as connection, pytest.MonkeyPatch.context() as monkeypatch:
        for statement, parameters in statements(connection, monkeypatch, model):
            (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            if tables := GROWING.intersection(scanned(plan["Plan"])):
                scans[statement] = tables
    return scans


def test_no_growing_table_is_read_completely(filled: tuple[Store, int]) -> None:
    store, model = filled
    with store.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM identity")) > 30_000
    assert "identity" in set.union(*sequential_scans(store, model).values())  # never analyzed: the planner guesses
    analyze_grown(store)
    assert not sequential_scans(store, model)


def test_statistics_cover_what_the_units_below_wrote(
    server: EmbeddedServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A building's windows are planned with statistics newer than its cameras' rows."""
    owner = server.connect(roles.OWNER, supplied_url(store.settings).database or "")
    with owner, owner.cursor() as cursor:
        cursor.execute("ALTER TABLE identity SET (autovacuum_enabled = off)")
    owner.close()
    monkeypatch.setattr(statistics, "_LEAST_PAGES", 1)
    monkeypatch.setattr(statistics, "_EVERY_S", 0.0)
    town = ThinTown(store, crowd(people=10, days=0.05))
    town.take_in()
    units = units_within(store, "d1/s1/b1")
    known = text("SELECT reltuples FROM pg_class WHERE oid = 'identity'::regclass")
    town.resolve(units[:1])
    with store.begin() as connection:
        written = connection.scalar(text("SELECT count(*) FROM identity"))
        assert written > 0 and connection.scalar(known) == -1
    town.resolve(units[1:2])
    with store.begin() as connection:
        assert connection.scalar(known) == written
