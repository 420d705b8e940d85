"""PgBouncer's transaction pooling in front of the server: what a session keeps never reaches another client."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy import text

from pipeline.store import Store, embedded, revision, roles, schema, url
from pipeline.store.locks import unit_lock
from schemas.errors import StoreError, StoreUnavailable
from schemas.settings import Settings
from tests.helpers.homes import fresh_settings
from tests.helpers.pool import connections, eventually, pooled

_WHO = text("SELECT current_user, pg_backend_pid(), current_setting('TimeZone') AS zone")


@pytest.fixture
def through_pool(settings: Settings) -> Iterator[Settings]:
    """A pool of one connection: what one client left, the next would find."""
    with pooled(settings, 1) as found:
        yield found


def test_no_role_is_left_to_the_next_client_of_one_server_connection(through_pool: Settings) -> None:
    """Each role in turn, through one server connection; the last look is that of a client without any role."""
    plain = psycopg2.connect(through_pool.database_url, application_name="plain")
    with closing(plain), Store.open(through_pool, "one") as one, Store.open(through_pool, "other") as other:
        seen, expected = [], []
        for store in (one, other) * 3:
            for begin, role in (
                (store.begin, roles.WORKER),
                (store.signed_in, roles.APP),
                (store.signing_in, roles.SIGNIN),
            ):
                with begin() as connection:
                    seen.append(connection.execute(_WHO).one())
                expected.append(role)
                with pytest.raises(StoreError, match="division by zero"), begin() as connection:
                    connection.execute(text("SELECT 1 / 0"))
                with plain, plain.cursor() as cursor:
                    cursor.execute("SELECT current_user, pg_backend_pid(), current_setting('urban_reid.session', true)")
                    user, pid, token = cursor.fetchone()
                assert (user, pid, token or "") == ("program", seen[-1].pg_backend_pid, "")
    assert [row.current_user for row in seen] == expected
    assert len({row.pg_backend_pid for row in seen}) == 1
    assert {row.zone for row in seen} == {"UTC"}


def test_no_session_token_is_left_to_the_next_client(through_pool: Settings) -> None:
    signed_in = Settings(**{**through_pool.model_dump(), "token": "ab" * 32})
    said = text("SELECT current_setting('urban_reid.session', true)")
    with Store.open(signed_in, "one") as one, Store.open(through_pool, "other") as other:
        with one.signed_in() as connection:
            assert connection.scalar(said) == "ab" * 32
        with other.begin() as connection:
            assert not connection.scalar(said)
        with other.signed_in() as connection:
            assert connection.scalar(said) == ""


def test_a_statement_outside_a_transaction_is_refused(through_pool: Settings) -> None:
    with (
        Store.open(through_pool) as store,
        store.engine.connect() as connection,
        pytest.raises(AssertionError, match="has no role"),
    ):
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("SELECT 1"))


def test_locks_of_units_are_kept_beside_the_pool(through_pool: Settings) -> None:
    """While one is held, the pool's only connection goes on to serve; a second process waits; then none is open."""
    waits: list[str] = []
    with (
        Store.open(through_pool, "one") as one,
        Store.open(through_pool, "other") as other,
        ThreadPoolExecutor(1) as pool,
    ):

        def wait() -> None:
            with unit_lock(other, "d1", waits.append):
                pass

        with unit_lock(one, "d1"):
            waiting = pool.submit(wait)
            eventually(lambda: bool(waits))
            for store in (one, other):
                with store.begin() as connection:
                    connection.execute(text("SELECT 1"))
            assert len(connections(through_pool)) == 3  # two locks, and the pool's
            assert not waiting.done()
        waiting.result()
        eventually(lambda: len(connections(through_pool)) == 1)
    assert re.match(r"waiting for d1: one \(process \d+\) has held it", waits[0])


def test_many_transactions_share_few_connections(through_pool: Settings) -> None:
    with Store.open(through_pool, "one") as one, Store.open(through_pool, "other") as other:

        def work(number: int) -> str:
            with (one, other)[number % 2].begin() as connection:
                return str(connection.execute(text("SELECT current_user, pg_sleep(0.001)")).one()[0])

        with ThreadPoolExecutor(16) as threads:
            assert set(threads.map(work, range(200))) == {roles.WORKER}
        assert len(connections(through_pool)) == 1


def test_a_pool_without_the_servers_own_address_is_refused_before_it_keeps_anything(through_pool: Settings) -> None:
    alone = through_pool.model_copy(update={"database_direct_url": None})
    for attempt in (Store.open, revision, schema.upgrade):
        with pytest.raises(StoreError, match=r"is the address of a pool .* URBAN_REID_DATABASE_DIRECT_URL") as refusal:
            attempt(alone)
        assert "of the program" not in str(refusal.value)
    with closing(psycopg2.connect(through_pool.database_url)) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("program",)


def test_both_addresses_must_lead_to_one_database(server: embedded.EmbeddedServer, through_pool: Settings) -> None:
    with fresh_settings(server) as other:
        wrong = through_pool.model_copy(update={"database_direct_url": other.database_url})
        with pytest.raises(StoreError, match="do not lead to one database"):
            Store.open(wrong)


def test_migrations_and_the_address_for_others_go_past_the_pool(through_pool: Settings) -> None:
    assert schema.upgrade(through_pool) == (schema.head(), schema.head()) == revision(through_pool)
    assert url(through_pool) == through_pool.database_direct_url


def test_a_server_connection_that_ends_is_an_unavailable_store(
    server: embedded.EmbeddedServer, through_pool: Settings
) -> None:
    superuser = server.connect("postgres", "postgres")
    superuser.autocommit = True
    with Store.open(through_pool, "one") as store, closing(superuser), superuser.cursor() as cursor:
        with pytest.raises(StoreUnavailable, match="does not answer"), store.begin() as connection:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.execute(_WHO).one().pg_backend_pid,))
            connection.execute(text("SELECT 1"))
        with store.begin() as connection:
            assert connection.execute(_WHO).one().current_user == roles.WORKER
