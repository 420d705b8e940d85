"""How many connections a process takes, and a server that has none left."""

import threading
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text

from pipeline.store import Store, connections, embedded, stop
from pipeline.store.locks import unit_lock
from schemas.errors import StoreUnavailable
from schemas.settings import Settings
from tests.helpers.homes import copied_home


@pytest.mark.timeout(120)
def test_threads_with_locks_and_transactions_take_two_connections_each_and_none_waits_for_ever(store: Store) -> None:
    most, seats, threads = 0, 2, 12
    store.seats = connections.Seats(seats)
    mine = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = current_setting('application_name')")
    counted = threading.Lock()

    def work(number: int) -> None:
        nonlocal most
        for _ in range(3):
            with unit_lock(store, f"d{number}"), unit_lock(store, "d1/s1"), store.begin() as connection:
                found = int(connection.scalar(mine) or 0)
            with counted:
                most = max(most, found)

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    # Two locks and a transaction each here; five more lie in the pool at most.
    assert most <= 3 * seats + 5


def test_a_server_without_a_free_connection_is_waited_for_and_told(
    used_home: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = copied_home(used_home, home / "full")
    with (full / "postgres" / "postgresql.conf").open("a") as file:
        file.write("max_connections = 6\nsuperuser_reserved_connections = 1\n")
    settings = Settings(home=full, database_url=None)
    with embedded.hold(full) as held:
        address = held.url()
        others = [psycopg2.connect(address) for _ in range(5)]
        started = threading.Event()

        def release() -> None:
            assert started.wait(60)
            others.pop().close()

        releasing = threading.Thread(target=release)
        releasing.start()
        monkeypatch.setattr("pipeline.store.connections.time.sleep", lambda _: started.set())
        with Store.open(settings) as store, store.begin() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
            releasing.join()
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert said.startswith(f"waiting for the database in {full}: all its connections are taken; end programs")
            monkeypatch.setattr(connections, "PATIENCE_S", 0.0)
            with pytest.raises(StoreUnavailable, match=r"has no connection left: .*; end programs .* max_connections"):
                Store.open(settings)
        for other in others:
            other.close()
    assert stop(settings) is False
