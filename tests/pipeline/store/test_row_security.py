"""Who sees which rows: role of the session x door into SQL x unit and time x session that holds or not.

Four people were seen, at INSIDE or outside of it and in the period or after it. The authorization is for INSIDE and the
period, so its sessions see the first one alone. Commands and flows read through the same transactions
(`Store.signed_in`). The core process serves whoever may open its socket, the operating system's user alone
(tests/reid_core/core_process/test_service.py); it holds no person.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from psycopg2.errors import Error
from pydantic import SecretStr
from sqlalchemy import Connection, text

from pipeline.browsing.people import read_people
from pipeline.city import named
from pipeline.city.assignments import write_assignments
from pipeline.review.passages import NEWEST
from pipeline.store import Store, embedded, roles
from pipeline.store.copy import copy_in, copy_out
from pipeline.store.partitions import ensure_partitions
from pipeline.training.confirmations import confirm
from schemas.errors import InputError, NotAllowed, StoreError
from tests.helpers.homes import become_live, fresh_settings, superuser_of, unbound
from tests.helpers.rows import Row, insert_model

INSIDE, OUTSIDE = "d1/s1/b1", "d1/s2/b1"
DAY = date(2026, 1, 1)
IN_TIME, LATE = datetime(2026, 1, 1, 8, tzinfo=UTC), datetime(2026, 1, 1, 12, tzinfo=UTC)
PEOPLE = [(INSIDE, IN_TIME), (INSIDE, LATE), (OUTSIDE, IN_TIME), (OUTSIDE, LATE)]

#: Tables with rows about persons: how many rows a session under the authorization sees, and how many there are.
PERSONS = {
    "crop": (1, 5),  # the fifth has no time of its own
    "crop_truth": (1, 4),
    "crop_attributes": (1, 4),
    "crop_embedding": (1, 4),
    "context_frame": (1, 4),
    "identity": (1, 4),
    "identity_now": (1, 4),
    "identity_member": (1, 4),
    "identity_event": (1, 4),
    "prototype": (1, 4),
    "match_decision": (1, 4),
    "confirmation": (1, 4),
    "review_open": (1, 4),
    "review_pair": (1, 4),
    "review_answer": (1, 4),
    "review_undo": (1, 4),
    "probe": (1, 2),
    "search_request": (1, 2),
}
#: Tables that urban_reid_app reads whole: places, counts and states, models and what their distances mean, hashes.
STATES = {
    "alembic_version", "audit_chain", "calibration", "camera_feed", "camera_file", "camera_health", "camera_host",
    "camera_lease", "camera_outage",
    "camera_overlap", "city", "ingest_batch", "learning", "model", "model_comparison", "model_switch", "run",
    "urban_unit", "walk", "watermark",
    "erased_group",  # hashes alone
    "search_recall",  # how well searches found, of whom it says nothing
    "retention",  # how long rows are kept
    "authorization_limits", "impact_assessment", "purpose",  # what may be asked for, by administrators
}  # fmt: skip


@pytest.fixture(scope="module")
def store(server: embedded.EmbeddedServer) -> Iterator[Store]:
    """A live home with four people, an authorization for the first, and sessions that hold or do not."""
    with fresh_settings(server) as settings, Store.open(settings) as opened:
        with opened.begin() as connection:
            fill(connection)
        become_live(superuser_of(server, settings))
        with unbound(server, settings) as connection:
            ask(connection)
        yield opened


@pytest.fixture(scope="module")
def partitions(store: Store) -> list[str]:
    with store.begin() as connection:
        found = connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition AND relkind IN ('r', 'p')"))
        return list(found.all())


def fill(connection: Connection) -> None:
    codes = ["d1", "d1/s1", INSIDE, f"{INSIDE}/c1", "d1/s2", OUTSIDE, f"{OUTSIDE}/c1", "d1/s10"]
    connection.execute(text("INSERT INTO city (timezone, digest) VALUES ('UTC', sha256('city'))"))
    connection.execute(text("INSERT INTO urban_unit (code) VALUES (:code)"), [{"code": code} for code in codes])
    model = insert_model(connection)
    batch = connection.execute(
        text(
            "INSERT INTO ingest_batch (digest, door, name, options, operator) "
            "VALUES (sha256('b'), 'video', 'plaza.mp4', '{}', 'anna') RETURNING id"
        )
    ).scalar_one()
    for family in ("crop_embedding", "prototype"):
        ensure_partitions(connection, family, model, [DAY])
    for number, (unit, moment) in enumerate(PEOPLE):
        values = {
            "camera": f"{unit}/c1", "unit": unit, "at": moment, "key": sha256(f"{unit} {moment}".encode()).digest(),
            "model": model, "batch": batch, "truth": f"person {number}", "track": str(number),
        }  # fmt: skip

        def put(statement: str, values: dict[str, object] = values) -> int:
            found: int = connection.execute(text(f"{statement} RETURNING 1"), values).scalar_one()
            return found

        crop = connection.execute(text(_CROP), values | {"timed": True}).scalar_one()
        run = connection.execute(text(_RUN), values).scalar_one()
        identity = connection.execute(text(_IDENTITY), values | {"run": run}).scalar_one()
        values |= {"crop": crop, "run": run, "identity": identity}
        put("INSERT INTO crop_truth (crop_id, truth) VALUES (:crop, :truth)")
        put(
            "INSERT INTO crop_attributes (crop_id, model, bag, backpack, hat, long_sleeves, long_trousers, long_hair, "
            "coat_or_jacket, top, bottom) VALUES (:crop, 'm', 0, 0, 0, 0, 0, 0, 0, 'red', 'blue')"
        )
        put("INSERT INTO crop_claim (batch_id, crop_id, track) VALUES (:batch, :crop, 'again')")
        put(
            "INSERT INTO context_frame (camera, track, captured_at, picture, width_px, height_px, batch_id) "
            "VALUES (:camera, :track, :at, :key, 640, 480, :batch)"
        )
        put("INSERT INTO identity_member (identity_id, crop_id) VALUES (:identity, :crop)")
        put("INSERT INTO identity_event (run_id, kind, persistent_id) VALUES (:run, 'create', gen_random_uuid())")
        put(
            "INSERT INTO match_decision (run_id, left_key, right_key, row_hash, verdict, distance, transit_log_odds, "
            "left_at, right_at) VALUES (:run, '\\x00'::bytea || substr(:key, 2), :key, :key, 'review', 0.1, 0, "
            ":camera, :camera)"
        )
        vector: Row = {"model_id": ("int4", [model]), "day": ("date", [DAY]), "v": ("halfvec", np.ones((1, 4)))}
        copy_in(connection, "crop_embedding", vector | {"crop_id": ("int8", [crop])})
        mean: Row = {"ordinal": ("int2", [0]), "kind": ("enum", ["mean"]), "weight": ("float4", [1.0])}
        copy_in(connection, "prototype", vector | mean | {"identity_id": ("int8", [identity])})
    untimed = {"camera": f"{INSIDE}/c1", "at": IN_TIME, "key": sha256(b"untimed").digest(), "timed": False}
    connection.execute(text(_CROP), untimed)


_CROP = (
    "INSERT INTO crop (key, camera, captured_at, timed, source, picture, width_px, height_px, quality) "
    "VALUES (:key, :camera, :at, :timed, 'test', :key, 64, 128, 0.5) RETURNING id"
)
_RUN = (
    "INSERT INTO run (run_key, unit, window_start, window_end, model_id, children, context) "
    "VALUES (:key, :unit, :at, CAST(:at AS timestamptz) + interval '5 min', :model, 0, 0) RETURNING id"
)
_IDENTITY = (
    "INSERT INTO identity (run_id, key, row_hash, persistent_id, unit, window_start, first_seen, last_seen, timed, "
    "crops, tracklets) VALUES (:run, :key, :key, gen_random_uuid(), :unit, :at, :at, "
    "CAST(:at AS timestamptz) + interval '1 min', true, 1, '{}') RETURNING id"
)
_ASK = """
INSERT INTO account (name, password) VALUES ('anna', 'x'), ('ben', 'x'), ('gone', 'x'), ('dora', 'x');
UPDATE account SET disabled_at = now() WHERE name = 'gone';
INSERT INTO case_file (id, name, opened_by) VALUES ('00000000-0000-0000-0000-00000000000c', 'a case', 1),
    ('00000000-0000-0000-0000-00000000000d', 'another case', 1);
INSERT INTO confirmation (identity_id, is_one_person, operator, reason)
    SELECT id, true, 'anna', 'I know him' FROM identity;
INSERT INTO review_answer (id, reviewer, said, way, reason)
    SELECT persistent_id, 'anna', 'same', 'pair', 'the same coat' FROM identity;
INSERT INTO review_pair (answer_id, left_key, right_key, left_crop, right_crop, unit)
    SELECT persistent_id, key, key, key, key, unit FROM identity;
INSERT INTO review_open (decision_id, run_id, unit, window_start, window_end, worth)
    SELECT d.id, r.id, r.unit, r.window_start, r.window_end, 1 FROM match_decision d JOIN run r ON r.id = d.run_id;
INSERT INTO review_undo (answer_id, reviewer, reason) SELECT persistent_id, 'ben', 'another coat' FROM identity;
"""
_AUDIT = """
INSERT INTO audit (actor, action, unit, reason) VALUES ('anna', 'search.start', 'd1/s1', 'lost child'),
    ('anna', 'search.start', 'd1/s2', 'another reason'), ('anna', 'model.use', NULL, 'no unit')
"""
_AUTHORIZE = (
    "INSERT INTO case_authorization (id, case_id, purpose, legal_basis, sought, units, from_time, to_time, asked_at, "
    "expires_at, asked_by, approved_by, approved_at, revoked_by, revoked_at, locked_at, refused_by, refused_at) VALUES "
    "(:id, '00000000-0000-0000-0000-00000000000c', 'missing person', 'law 1', 'a child', '{d1/s1}', "
    "'2026-01-01 07:00Z', '2026-01-01 09:00Z', now() - interval '2 days', now() + CAST(:left AS interval), 1, "
    "CASE WHEN :approved THEN 2 END, CASE WHEN :approved THEN now() END, CASE WHEN :revoked THEN 2 END, "
    "CASE WHEN :revoked THEN now() END, CASE WHEN :locked THEN now() END, CASE WHEN :refused THEN 2 END, "
    "CASE WHEN :refused THEN now() END)"
)
_SIGN_IN = (
    "INSERT INTO session (hash, account_id, role, units, authorization_id, expires_at, ended_at) VALUES ("
    "sha256(decode(:token, 'hex')), :account, CAST(:role AS account_role_kind), :units, :authorization, "
    "now() + CAST(:left AS interval), CASE WHEN :ended THEN now() END)"
)
#: Somebody is looked for as windows close, and one passage was raised.
_STANDING = """
INSERT INTO standing_search (id, authorization_id, asked_by, role, operator, reason, units, bar, from_time, to_time)
    VALUES (:of, :of, 1, 'operator', 'anna', 'lost child', '{d1/s1}', 0.5, '2026-01-01 07:00Z', '2026-01-01 09:00Z');
INSERT INTO standing_picture (standing_id, probe_id) VALUES (:of, :probe);
INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance)
    SELECT :of, 1, min(i.id), min(m.id), 0.1 FROM identity i, model m;
INSERT INTO standing_passage (standing_id, tracklet, request_id, rank, last_frame_at, raised_at)
    SELECT :of, persistent_id, :of, 1, last_seen, now() FROM identity ORDER BY id LIMIT 1;
INSERT INTO standing_message (request_id, rank) VALUES (:of, 1)
"""
OTHERS = UUID(int=0x99)  # an authorization of another case


def token(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def ask(connection: Connection) -> None:
    """Authorizations, searches under two of them, and a session a name of SESSIONS."""
    connection.execute(text(_AUDIT))
    connection.execute(text("SET LOCAL session_replication_role = replica"))  # no trigger: only policies are tried here
    connection.execute(text(_ASK))
    states: dict[str, dict[str, Any]] = {
        "held": {},
        "expired": {"left": "-1 s"},
        "revoked": {"revoked": True},
        "locked": {"locked": True},
        "refused": {"approved": False, "refused": True},
        "asked": {"approved": False},
    }
    ids = {name: UUID(int=number + 1) for number, name in enumerate(states)}
    for name, state in states.items():
        usual = {"left": "1 day", "approved": True, "revoked": False, "locked": False, "refused": False}
        connection.execute(text(_AUTHORIZE), usual | {"id": ids[name]} | state)
    connection.execute(
        text(
            "INSERT INTO case_authorization (id, case_id, purpose, legal_basis, sought, units, from_time, to_time, "
            "expires_at, asked_by) SELECT :other, '00000000-0000-0000-0000-00000000000d', purpose, legal_basis, "
            "sought, units, from_time, to_time, expires_at, asked_by FROM case_authorization WHERE id = :held"
        ),
        {"other": OTHERS, "held": ids["held"]},
    )
    for authorization in (ids["held"], OTHERS):
        probe = connection.execute(
            text(
                "INSERT INTO probe (picture, uploaded_by, case_id) SELECT sha256('p'), 'anna', case_id "
                "FROM case_authorization WHERE id = :of RETURNING id"
            ),
            {"of": authorization},
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO search_request (id, operator, reason, unit, probe_id, top, model_id, session_hash, "
                "authorization_id) SELECT :of, 'anna', 'lost child', 'd1/s1', :probe, 5, m.id, "
                "sha256(decode(:token, 'hex')), :of FROM model m"
            ),
            {"of": authorization, "probe": probe, "token": token("operator")},
        )
        for statement in _STANDING.split(";"):
            connection.execute(text(statement), {"of": authorization, "probe": probe})
    usual = {"account": 1, "role": "operator", "units": "{''}".replace("'", '"'), "authorization": None,
             "left": "1 hour", "ended": False}  # fmt: skip
    sessions: dict[str, dict[str, Any]] = {
        "operator": {"authorization": ids["held"]},
        "supervisor": {"role": "supervisor", "authorization": ids["held"], "account": 2},
        "operator of a street": {"authorization": ids["held"], "units": "{d1/s1}"},
        "operator of another street": {"authorization": ids["held"], "units": "{d1/s2,d1/s10}", "account": 4},
        "supervisor of another street": {"role": "supervisor", "units": "{d1/s2}", "account": 4},
        "supervisor of a building": {"role": "supervisor", "units": f"{{{INSIDE}}}", "account": 4},
        "auditor of another street": {"role": "auditor", "units": "{d1/s2}", "account": 4},
        "engineer who asked": {"role": "engineer"},
        "operator without authorization": {},
        "supervisor without authorization": {"role": "supervisor"},
        "auditor": {"role": "auditor"},
        "auditor of a street": {"role": "auditor", "units": "{d1/s1}"},
        "engineer": {"role": "engineer"},
        "administrator": {"role": "administrator"},
        "engineer with authorization": {"role": "engineer", "authorization": ids["held"]},
        "auditor with authorization": {"role": "auditor", "authorization": ids["held"]},
        "administrator with authorization": {"role": "administrator", "authorization": ids["held"]},
        "expired session": {"authorization": ids["held"], "left": "-1 s"},
        "ended session": {"authorization": ids["held"], "ended": True},
        "disabled account": {"authorization": ids["held"], "account": 3},
        **{f"{name} authorization": {"authorization": ids[name]} for name in ids if name != "held"},
    }
    for name, session in sessions.items():
        connection.execute(text(_SIGN_IN), usual | {"token": token(name)} | session)


#: Sessions under an authorization that holds.
SEES = ["operator", "supervisor", "operator of a street"]
SEES_NOBODY = [
    "operator of another street", "supervisor of another street", "supervisor of a building",
    "auditor of another street", "engineer who asked", "operator without authorization",
    "supervisor without authorization", "auditor", "auditor of a street", "engineer", "administrator",
    "engineer with authorization", "auditor with authorization", "administrator with authorization",
    "expired session", "ended session", "disabled account", "expired authorization", "revoked authorization",
    "locked authorization", "refused authorization", "asked authorization", "forged", "nobody",
]  # fmt: skip
AUDITS = {"auditor": 3, "auditor with authorization": 1, "auditor of a street": 1, "auditor of another street": 1}
#: Sessions that read who is sought: all authorizations, and those of their units, none of which is asked for elsewhere.
READS = re.compile("(operator|supervisor|auditor)(?!.* another street)")


def signed_in(store: Store, name: str) -> Store:
    """The store under the session of that name."""
    held = None if name == "nobody" else SecretStr(token(name))
    store.settings = store.settings.model_copy(update={"token": held})
    return store


def select(connection: Connection, table: str) -> int:
    return len(connection.execute(text(f"SELECT 1 FROM {table}")).all())


def copied(connection: Connection, table: str) -> int:
    return len(copy_out(connection, f"SELECT 1::int4 AS one FROM {table}", {}, {"one": "int4"})["one"])


def by_subquery(connection: Connection, table: str) -> int:
    return int(
        connection.execute(text(f"WITH x AS MATERIALIZED (SELECT 1 FROM {table}) SELECT count(*) FROM x")).scalar_one()
    )


def by_cursor(connection: Connection, table: str) -> int:
    connection.execute(text(f"DECLARE reading CURSOR FOR SELECT 1 FROM {table}"))
    return len(connection.execute(text("FETCH ALL FROM reading")).all())


def prepared(connection: Connection, table: str) -> int:
    """A plan made before the session is known must not be one for nobody, nor the other way round."""
    connection.execute(text(f"PREPARE reading AS SELECT count(*) FROM {table}"))
    found = int(connection.execute(text("EXECUTE reading")).scalar_one())
    connection.execute(text("DEALLOCATE reading"))
    return found


DOORS = [select, copied, by_subquery, by_cursor, prepared]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", [*SEES, *SEES_NOBODY])
def test_what_a_session_sees_of_persons(store: Store, name: str, door: Callable[[Connection, str], int]) -> None:
    for table, (seen, _) in PERSONS.items():
        with signed_in(store, name).signed_in() as connection:
            assert door(connection, table) == (seen if name in SEES else 0), table


@pytest.mark.parametrize("name", [*SEES, *SEES_NOBODY])
def test_who_reads_the_audit_and_who_is_sought(store: Store, name: str) -> None:
    with signed_in(store, name).signed_in() as connection:
        assert select(connection, "audit") == AUDITS.get(name, 0)
        reads = READS.match(name) is not None
        assert (select(connection, "case_file"), select(connection, "case_authorization")) == (
            (2, 7) if reads else (0, 0)
        )
        assert select(connection, "run") == 4  # counts and states are everybody's


@pytest.mark.parametrize("name", [*SEES, *SEES_NOBODY])
def test_who_reads_what_is_looked_for_and_what_was_raised(store: Store, name: str) -> None:
    """Who is looked for reads whoever reads who is sought; which passage was raised, whoever is under its case."""
    with signed_in(store, name).signed_in() as connection:
        looked_for = 2 if READS.match(name) else 0
        assert select(connection, "standing_search") == select(connection, "standing_picture") == looked_for
        assert select(connection, "standing_passage") == (1 if name in SEES else 0)
    with pytest.raises(StoreError, match="permission denied"), store.signed_in() as connection:
        select(connection, "standing_message")


def test_the_rows_that_are_seen_are_those_inside(store: Store) -> None:
    with signed_in(store, "operator").signed_in() as connection:
        (row,) = connection.execute(text("SELECT camera, captured_at FROM crop")).all()
        assert tuple(row) == (f"{INSIDE}/c1", IN_TIME)
        (row,) = connection.execute(text("SELECT unit, first_seen FROM identity_now")).all()
        assert tuple(row) == (INSIDE, IN_TIME)
        assert connection.scalars(text("SELECT truth FROM crop_truth")).all() == ["person 0"]


def test_the_worker_sees_all_rows(store: Store) -> None:
    with store.begin() as connection:
        for table, (_, there) in PERSONS.items():
            some = {"probe": "picture", "search_request": "id", "confirmation": "id", "review_answer": "id"}
            columns = (some | {"review_undo": "answer_id"}).get(table, "*")
            found = connection.execute(text(f"SELECT count(*) FROM (SELECT {columns} FROM {table}) x")).scalar_one()
            assert found == there, table


def test_no_partition_is_read_by_its_name(store: Store, partitions: list[str]) -> None:
    assert len(partitions) == 4
    for partition in partitions:
        for statement in (f"SELECT * FROM {partition}", f"COPY {partition} TO STDOUT", f"COPY {partition} FROM STDIN"):
            with pytest.raises(StoreError, match="permission denied"), signed_in(store, "operator").signed_in() as c:
                c.connection.cursor().execute(statement)


def test_tables_are_copied_neither_whole_nor_with_row_security_off(store: Store) -> None:
    tables = [table for table in PERSONS if table != "identity_now"]
    for table in tables:
        with (
            pytest.raises(StoreError, match="affected by row-level security"),
            signed_in(store, "operator").signed_in() as c,
        ):
            c.execute(text("SET LOCAL row_security = off"))
            select(c, table)
        with (
            pytest.raises((StoreError, Error), match=r"permission denied|COPY FROM not supported"),
            store.signed_in() as c,
        ):
            c.connection.cursor().copy_expert(f"COPY {table} FROM STDIN", BytesIO())


def test_a_function_of_ones_own_sees_no_row_before_the_policy_does(store: Store) -> None:
    """It costs nothing, so the planner would like to call it first."""
    with signed_in(store, "operator").signed_in() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION pg_temp.told(said text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ "
                "BEGIN RAISE NOTICE '%', said; RETURN true; END $$"
            )
        )
        raw = connection.connection.cursor()  # SQLAlchemy's own takes the notices away
        for table, column in {
            "crop": "camera",
            "identity": "unit",
            "identity_now": "unit",
            "crop_truth": "truth",
        }.items():
            raw.execute(f"SELECT count(*) FROM {table} WHERE pg_temp.told({column})")
        said = "".join(raw.connection.notices)
        connection.execute(text("DROP FUNCTION pg_temp.told(text)"))
    assert INSIDE in said and "person 0" in said
    assert OUTSIDE not in said and "person 1" not in said and "person 2" not in said


def test_the_statistics_of_columns_show_nobody(server: embedded.EmbeddedServer, store: Store) -> None:
    with unbound(server, store.settings) as connection:
        connection.execute(text("ANALYZE"))
    with signed_in(store, "operator").signed_in() as connection:
        tables = connection.scalars(text("SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'")).all()
        assert not {*PERSONS, "audit", "account", "session"} & set(tables)
        assert "urban_unit" in tables


def test_a_session_is_not_made_up(store: Store) -> None:
    """Whoever has the role's password may set the variables, which prove nothing by themselves."""
    with signed_in(store, "nobody").signed_in() as connection:
        for value in (
            "",
            "operator",
            "' OR true --",
            "0" * 64,
            "f" * 64,
            token("forged"),
            sha256(bytes.fromhex(token("operator"))).hexdigest(),
        ):
            connection.execute(text("SELECT set_config('urban_reid.session', :value, true)"), {"value": value})
            assert select(connection, "crop") == select(connection, "probe") == 0, value
        for value in ("", "x", str(UUID(int=7))):
            connection.execute(text("SELECT set_config('urban_reid.request', :value, true)"), {"value": value})
            assert select(connection, "crop") == 0, value


def test_the_session_ends_with_the_transaction(store: Store) -> None:
    with signed_in(store, "operator").signed_in() as connection:
        assert select(connection, "crop") == 1
    with signed_in(store, "nobody").signed_in() as connection:  # on the same connection of the pool
        assert select(connection, "crop") == 0


def test_a_process_without_a_session_answers_an_unanswered_search(store: Store) -> None:
    signed_in(store, "nobody")
    with store.signed_in(UUID(int=1)) as connection:
        assert select(connection, "crop") == select(connection, "search_request") == 1
    with store.signed_in(UUID(int=2)) as connection:
        assert select(connection, "crop") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO confirmation (identity_id, is_one_person, operator, reason) "
        "SELECT max(n), true, 'anna', 'a guess' FROM generate_series(1, 4) AS n",
        "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance) "
        f"SELECT '{UUID(int=1)}', 1, n, m.id, 0.1 FROM model AS m, generate_series(1, 4) AS n WHERE n = 2",
    ],
)
def test_nothing_is_written_about_persons_outside(store: Store, statement: str) -> None:
    with pytest.raises(StoreError, match="row-level security"), signed_in(store, "operator").signed_in() as connection:
        connection.execute(text(statement))


def test_exports_and_statements_go_through_the_same_door(store: Store, tmp_path: Path) -> None:
    with store.begin() as connection:
        inside, _, outside, _ = connection.scalars(text("SELECT persistent_id::text FROM identity ORDER BY id")).all()
    file = tmp_path / "rows.jsonl"
    assert write_assignments(signed_in(store, "operator"), "d1/s1", file) == 1
    assert json.loads(file.read_text())["camera"] == f"{INSIDE}/c1"
    for name, unit in (("operator", "d1"), ("operator", "d1/s2"), ("engineer", "d1/s1"), ("forged", "d1/s1")):
        with pytest.raises(NotAllowed):
            write_assignments(signed_in(store, name), unit, file)
    with pytest.raises(InputError, match="no identity's id begins with"):
        confirm(signed_in(store, "operator"), outside, operator="anna", reason="a guess")
    with pytest.raises(NotAllowed):
        confirm(signed_in(store, "engineer"), inside, operator="anna", reason="a guess")
    with pytest.raises(InputError, match="is an identity of the building"):
        confirm(signed_in(store, "operator"), inside, operator="anna", reason="a guess")


def test_an_identity_is_found_by_its_first_digits_along_an_index(store: Store) -> None:
    with store.begin() as connection:
        inside, *others = connection.scalars(text("SELECT persistent_id FROM identity ORDER BY id")).all()
        twin = {"twin": UUID(int=inside.int ^ 1), "of": inside}
        nested = connection.begin_nested()
        connection.execute(text(_TWIN), twin)
        with pytest.raises(InputError, match="more than one identity's id begins with"):
            named.current_identity(connection, str(inside)[:-1])
        assert named.current_identity(connection, str(inside)).persistent_id == inside
        nested.rollback()
    with signed_in(store, "operator").signed_in() as connection:
        for name in (str(inside), str(inside).upper(), inside.hex, str(inside)[:9], inside.hex[:4]):
            assert named.current_identity(connection, name).persistent_id == inside, name
        for other in others:
            with pytest.raises(InputError, match="no identity's id begins with"):
                named.current_identity(connection, str(other))
        for wrong in (inside.hex[:3], "xyzt", "----", f"{inside}0"):
            with pytest.raises(InputError, match="the first four digits"):
                named.current_identity(connection, wrong)
    for transaction in (store.begin, signed_in(store, "operator").signed_in):
        with transaction() as connection:
            connection.execute(text("SET LOCAL enable_seqscan = off"))  # four rows are read faster without
            sql = text(f"EXPLAIN (COSTS OFF) {named._IDENTITY}")
            plan = "\n".join(connection.scalars(sql, {"first": inside, "last": inside}))
        assert re.search(r"Index Cond: \(\(?persistent_id >= ", plan), plan


def test_a_version_that_was_withdrawn_is_shown_to_nobody_who_cannot_see_what_came_after_it(
    store: Store, server: embedded.EmbeddedServer
) -> None:
    """What was seen of the first person in the period was taken out later: the rest was seen after the period."""

    def shown() -> set[str]:
        with signed_in(store, "operator").signed_in() as connection:
            found = {
                "the view": connection.execute(text("SELECT 1 FROM identity_now")).all(),
                "people": read_people(connection, INSIDE).people,
                "review": connection.execute(text(f"SELECT 1 FROM identity i WHERE {NEWEST}")).all(),
            }
        return {name for name, rows in found.items() if rows}

    assert shown() == {"the view", "people", "review"}
    with unbound(server, store.settings) as connection:
        first, key = connection.execute(text("SELECT id, key FROM identity ORDER BY id LIMIT 1")).one()
        rest = connection.execute(text(_REST), {"unit": INSIDE, "at": LATE, "of": first}).scalar_one()
    try:
        assert shown() == set()
        with signed_in(store, "operator").signed_in() as connection:
            outdated = text("SELECT is_outdated(:id, :key)")
            assert connection.scalar(outdated, {"id": first, "key": bytes(key)})
            assert not connection.scalar(outdated, {"id": first, "key": bytes(32)})  # tells nothing of unseen rows
        with store.begin() as connection:
            assert rest in connection.scalars(text("SELECT id FROM identity_now")).all()
            assert first not in connection.scalars(text("SELECT id FROM identity_now")).all()
    finally:
        with unbound(server, store.settings) as connection:
            connection.execute(text("DELETE FROM identity WHERE id = :id"), {"id": rest})
    assert shown() == {"the view", "people", "review"}


_REST = (
    "INSERT INTO identity (run_id, key, row_hash, persistent_id, unit, window_start, first_seen, last_seen, timed, "
    "crops, tracklets) SELECT r.id, sha256(i.key), i.row_hash, i.persistent_id, i.unit, r.window_start, :at, :at, "
    "true, 1, '{}' FROM identity i JOIN run r ON r.unit = :unit AND r.window_start = :at WHERE i.id = :of RETURNING id"
)
_TWIN = (
    "INSERT INTO identity (run_id, key, row_hash, persistent_id, unit, window_start, first_seen, last_seen, timed, "
    "crops, tracklets) SELECT run_id, sha256(key), row_hash, :twin, unit, window_start, first_seen, last_seen, timed, "
    "crops, tracklets FROM identity WHERE persistent_id = :of"
)


def test_row_security_is_forced_on_each_table_that_the_program_reads_but_states(store: Store) -> None:
    """A new table is either of persons, with policies, or named above with what it holds."""
    with store.begin() as connection:
        tables = connection.execute(
            text(
                "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced FROM pg_class "
                "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition "
                f"AND has_any_column_privilege('{roles.APP}', oid, 'SELECT')"
            )
        ).all()
        views = connection.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm') "
                "AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)"
            )
        ).all()
    assert {row.relname for row in tables if not row.forced} == STATES
    assert views == []


def test_what_a_session_may_is_asked_once_a_statement(store: Store) -> None:
    with signed_in(store, "operator").signed_in() as connection:
        for table in PERSONS:
            plan = "\n".join(connection.scalars(text(f"EXPLAIN (VERBOSE, COSTS OFF) SELECT 1 FROM {table}")))
            asked = [line for line in plan.splitlines() if re.search(r"\b(granted|seen_\w+)\(\)", line)]
            assert asked and all("Output:" in line for line in asked), plan  # an InitPlan each, and in no filter


def test_the_planner_takes_policies_for_conditions_that_many_rows_meet(store: Store) -> None:
    """If it expects a single row, it reads whole tables to join a few rows."""

    def expected(connection: Connection, table: str) -> int:
        plan = connection.scalar(text(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {table}"))
        return int(plan[0]["Plan"]["Plan Rows"])

    for table in ("crop", "context_frame", "identity", "identity_member", "prototype"):
        with store.begin() as connection:
            there = expected(connection, table)
        with signed_in(store, "operator").signed_in() as connection:
            assert expected(connection, table) >= there / 4, table
