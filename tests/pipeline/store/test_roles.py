"""What each role of the program may do, whatever its rows: rights on tables, columns and functions."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date

import pytest
from sqlalchemy import Connection, text

from pipeline.store import Store, embedded, roles
from pipeline.store.partitions import ensure_partitions
from schemas.errors import StoreError
from tests.helpers.homes import fresh_settings
from tests.helpers.rows import insert_model


@pytest.fixture(scope="module")
def store(server: embedded.EmbeddedServer) -> Iterator[Store]:
    """One database for all tests of this module: each statement is refused, or changes no row."""
    with fresh_settings(server) as fresh, Store.open(fresh) as opened:
        yield opened


def as_role(store: Store, role: str) -> AbstractContextManager[Connection]:
    return {roles.WORKER: store.begin, roles.APP: store.signed_in, roles.SIGNIN: store.signing_in}[role]()


NOBODY_MAY = [
    "CREATE TABLE mine (n int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP EXTENSION vector",
    "CREATE ROLE mine",
    "ALTER TABLE crop ADD COLUMN mine int",
    "ALTER TABLE crop DISABLE ROW LEVEL SECURITY",
    "DROP POLICY seen ON crop",
    "DROP TABLE audit",
    "CREATE INDEX ON crop (ingested_at)",
    "TRUNCATE crop CASCADE",
    "TRUNCATE audit",
    "TRUNCATE match_decision",
    "UPDATE match_decision SET verdict = 'join'",
    "DELETE FROM match_decision",
    "UPDATE audit SET reason = 'none'",
    "DELETE FROM audit",
    "UPDATE identity_event SET kind = 'merge'",
    "UPDATE identity SET persistent_id = gen_random_uuid()",
    "UPDATE crop SET captured_at = now()",
    "UPDATE crop_embedding SET v = v",
    "UPDATE run SET run_key = run_key",
    "UPDATE calibration SET parameters = '{}'",
    "UPDATE model SET dims = 1",
    "UPDATE search_request SET reason = 'another'",
    "UPDATE alembic_version SET version_num = ''",
    "INSERT INTO alembic_version VALUES ('x')",
    "SELECT pg_read_file('PG_VERSION')",
    "UPDATE city SET kind = 'synthetic'",
]
MAY = {
    roles.WORKER: [
        "UPDATE run SET superseded_at = now()",
        "UPDATE model SET in_use = true",
        "UPDATE watermark SET dirty_from = NULL",
        "UPDATE city SET is_demo = false",
        "DELETE FROM prototype",
        "SELECT v FROM crop_embedding",
        "INSERT INTO audit (actor, action) VALUES ('me', 'test')",
        "SELECT count(*) FROM search_request WHERE finished_at IS NULL",
        "SELECT at, actor, action, unit FROM audit",
        "SELECT picture, uploaded_at FROM probe",
    ],
    roles.APP: [
        "UPDATE search_request SET finished_at = now()",
        "INSERT INTO audit (actor, action) VALUES ('me', 'test')",
        "SELECT reason, details FROM audit",
        "SELECT v FROM crop_embedding",
        "SELECT * FROM identity_now",
        "SELECT * FROM probe",
    ],
    roles.SIGNIN: [
        "INSERT INTO audit (actor, action) VALUES ('me', 'test')",
        "SELECT password FROM account",
        "UPDATE session SET ended_at = now()",
        "SELECT expires_at FROM case_authorization",
    ],
}
MAY_NOT = {
    roles.WORKER: [
        "SELECT reason FROM search_request",
        "SELECT operator FROM search_request",
        "SELECT crop_id FROM search_request",
        "SELECT * FROM search_hit",
        "SELECT * FROM search_evidence",
        "SELECT uploaded_by FROM probe",
        "SELECT reason FROM audit",
        "SELECT details FROM audit",
        "SELECT reason FROM confirmation",
        "SELECT * FROM account",
        "SELECT * FROM account_role",
        "SELECT * FROM session",
        "SELECT sought FROM case_authorization",
        "SELECT purpose FROM case_authorization",
        "SELECT name FROM case_file",
        "INSERT INTO search_request DEFAULT VALUES",
        "INSERT INTO session DEFAULT VALUES",
        "INSERT INTO confirmation DEFAULT VALUES",
    ],
    roles.APP: [
        "INSERT INTO crop DEFAULT VALUES",
        "COPY crop FROM STDIN",
        "DELETE FROM prototype",
        "UPDATE model SET in_use = true",
        "UPDATE run SET superseded_at = now()",
        "SELECT * FROM account",
        "SELECT * FROM account_role",
        "SELECT * FROM session",
        "UPDATE session SET expires_at = 'infinity'",
        "SELECT ensure_partition('prototype', 1, '2026-01-01')",
        "SELECT remove_model(1)",
    ],
    roles.SIGNIN: [
        "SELECT * FROM crop",
        "SELECT * FROM identity_now",
        "SELECT * FROM probe",
        "SELECT reason FROM audit",
        "SELECT reason FROM search_request",
        "UPDATE case_authorization SET approved_at = now()",
        "UPDATE session SET expires_at = 'infinity'",
    ],
}


@pytest.mark.parametrize("role", roles.PROGRAM)
def test_a_role_may_not(store: Store, role: str) -> None:
    for statement in (*NOBODY_MAY, *MAY_NOT[role]):
        with (
            pytest.raises(StoreError, match=r"permission denied|must be owner"),
            as_role(store, role) as connection,
        ):
            connection.execute(text(statement))
            pytest.fail(f"{role} may {statement}")


@pytest.mark.parametrize("role", roles.PROGRAM)
def test_a_role_may(store: Store, role: str) -> None:
    for statement in MAY[role]:
        with as_role(store, role) as connection:
            connection.execute(text(statement))


def test_no_role_becomes_another(server: embedded.EmbeddedServer) -> None:
    """Where each has its own password; on a user-supplied server one login acts as all of them."""
    for role in roles.PROGRAM:
        connection = server.connect(role)
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolname FROM pg_roles WHERE pg_has_role(current_user, oid, 'MEMBER') ORDER BY 1")
            assert [name for (name,) in cursor.fetchall()] == [role]
        connection.close()


def test_roles_own_nothing_not_even_the_partitions_that_they_created(store: Store) -> None:
    with store.begin() as connection:
        model = insert_model(connection)
        ensure_partitions(connection, "prototype", model, [date(2026, 1, 1)])
    with store.begin() as connection:
        owned = "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = ANY(:roles)"
        assert connection.scalars(text(owned), {"roles": list(roles.PROGRAM)}).all() == []
        attributes = connection.execute(
            text(
                "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication AS mighty, rolbypassrls "
                "FROM pg_roles WHERE rolname = ANY(:roles) ORDER BY 1"
            ),
            {"roles": [roles.OWNER, *roles.PROGRAM]},
        ).all()
        assert [tuple(row) for row in attributes] == [
            (role, False, role in roles.SEE_ALL) for role in sorted((roles.OWNER, *roles.PROGRAM))
        ]
    with pytest.raises(StoreError, match=r"permission denied|must be owner"), store.begin() as connection:
        connection.execute(text(f"DROP TABLE prototype_m{model}_20260101"))
    with pytest.raises(StoreError, match="permission denied"), store.begin() as connection:
        connection.execute(text(f"UPDATE prototype_m{model}_20260101 SET weight = 2"))
