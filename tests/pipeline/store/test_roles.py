"""The rights of the program's role."""

from collections.abc import Iterator
from datetime import date

import pytest
from sqlalchemy import text

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


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (n int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP EXTENSION vector",
        "CREATE ROLE mine",
        "ALTER TABLE crop ADD COLUMN mine int",
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
        f"SET ROLE {roles.OWNER}",
        "SET ROLE postgres",
        "SELECT pg_read_file('PG_VERSION')",
    ],
)
def test_the_program_may_not(store: Store, statement: str) -> None:
    with pytest.raises(StoreError, match=r"permission denied|must be owner"), store.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE run SET superseded_at = now()",
        "UPDATE model SET in_use = true",
        "UPDATE watermark SET dirty_from = NULL",
        "UPDATE search_request SET finished_at = now()",
        "UPDATE city SET is_demo = false",
        "DELETE FROM prototype",
        "INSERT INTO audit (actor, action) VALUES ('me', 'test')",
    ],
)
def test_the_program_may(store: Store, statement: str) -> None:
    with store.begin() as connection:
        connection.execute(text(statement))


def test_the_program_owns_nothing_not_even_the_partitions_that_it_created(store: Store) -> None:
    with store.begin() as connection:
        model = insert_model(connection)
        ensure_partitions(connection, "prototype", model, [date(2026, 1, 1)])
    with store.begin() as connection:
        owned = "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = :role"
        assert connection.scalars(text(owned), {"role": roles.APP}).all() == []
        attributes = connection.execute(
            text(
                "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls AS mighty, "
                "rolpassword IS NOT NULL FROM pg_roles WHERE rolname IN (:app, :owner) ORDER BY 1"
            ),
            {"app": roles.APP, "owner": roles.OWNER},
        ).all()
        assert [tuple(row) for row in attributes] == [(roles.APP, False, True), (roles.OWNER, False, True)]
    with pytest.raises(StoreError, match=r"permission denied|must be owner"), store.begin() as connection:
        connection.execute(text(f"DROP TABLE prototype_m{model}_20260101"))
    with pytest.raises(StoreError, match="permission denied"), store.begin() as connection:
        connection.execute(text(f"UPDATE prototype_m{model}_20260101 SET weight = 2"))
