"""Transactions, errors and the time that they take."""

import threading

import pytest
from sqlalchemy import text

from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.errors import InputError, StoreError
from tests.helpers.homes import superuser_of
from tests.helpers.rows import insert_city


def units(store: Store) -> int:
    with store.begin() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM urban_unit")) or 0)


def test_a_transaction_is_kept_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(InputError), store.begin() as connection:
        insert_city(connection)
        raise InputError("something else went wrong")
    assert units(store) == 0
    with pytest.raises(StoreError, match="refused: division by zero"), store.begin() as connection:
        insert_city(connection)
        connection.execute(text("SELECT 1 / 0"))
    assert units(store) == 0
    with store.begin() as connection:
        insert_city(connection)
    assert units(store) == 8


def test_an_error_is_one_line_without_the_statements_values(store: Store) -> None:
    with pytest.raises(StoreError) as refusal, store.signed_in() as connection:
        connection.execute(
            text("INSERT INTO audit (actor, action, reason) VALUES ('', 'person.show', :reason)"),
            {"reason": "the secret reason"},
        )
    assert "\n" not in str(refusal.value)
    assert "audit_actor_check" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "***" in str(refusal.value)  # the address, without its password


def test_a_value_that_the_driver_cannot_send_is_no_lost_connection(store: Store) -> None:
    with pytest.raises(StoreError, match="can't adapt type 'object'") as refusal, store.begin() as connection:
        connection.execute(text("SELECT :value"), {"value": object()})
    assert type(refusal.value) is StoreError


def test_waits_for_the_database_are_reported_from_every_thread(store: Store) -> None:
    waits: list[float] = []
    store.listen(lambda start, end: waits.append(end - start))

    def wait() -> None:
        with store.begin() as connection:
            connection.execute(text("SELECT pg_sleep(0.1)"))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wait >= 0.1 for wait in waits) >= 3


def test_a_connection_that_the_server_ended_is_replaced(server: EmbeddedServer, store: Store) -> None:
    process = text("SELECT pg_backend_pid()")
    with store.begin() as connection:
        first = connection.scalar(process)
    with store.begin() as connection:
        assert connection.scalar(process) == first
    superuser = superuser_of(server, store.settings)()
    with superuser.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 30000)", (first,))  # milliseconds until it has ended
    superuser.close()
    with store.begin() as connection:
        assert connection.scalar(process) != first
