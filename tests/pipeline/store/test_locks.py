"""Locks of units."""

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import Queue

import pytest
from sqlalchemy import Connection, event, text

from pipeline.store import Store
from pipeline.store.locks import lock_crops, share_crops, unit_lock
from schemas.errors import StoreUnavailable

_LOCK = """
import sys
from pathlib import Path
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from schemas.settings import Settings
with Store.open(Settings(home=Path(sys.argv[1]), database_url=sys.argv[2]), "urban-reid resolve") as store:
    with unit_lock(store, "d1/s1"):
        print("locked", flush=True)
        sys.stdin.readline()
"""


def test_each_unit_has_one_lock(store: Store) -> None:
    with unit_lock(store, "d1/s1"), unit_lock(store, "d1/s2"), store.begin() as connection:
        free = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:unit, 0))")
        assert connection.scalar(free, {"unit": "d1/s1"}) is False
        assert connection.scalar(free, {"unit": "d1/s2"}) is False
        assert connection.scalar(free, {"unit": "d1"}) is True
    with store.begin() as connection:
        assert connection.scalar(free, {"unit": "d1/s1"}) is True


@pytest.mark.parametrize("lock", [lock_crops, share_crops])
def test_a_process_that_stands_still_with_the_lock_of_crops_loses_it(
    store: Store, lock: Callable[[Connection], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("SHARED_IDLE_S", "LOCKED_IDLE_S"):
        monkeypatch.setattr(f"pipeline.store.locks.{seconds}", 1)
    with pytest.raises(StoreUnavailable, match="does not answer"), store.begin() as connection:
        lock(connection)
        with store.begin() as other:
            lock_crops(other)  # waits until the server has ended the session of the first
        connection.execute(text("SELECT 1"))


def test_a_failure_releases_the_lock(store: Store) -> None:
    waits: list[str] = []
    for _ in range(2):
        try:
            with unit_lock(store, "d1", waits.append):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    assert not waits


def test_an_interrupt_during_the_release_ends_the_session(store: Store) -> None:
    def interrupt(*call: object) -> None:
        if "pg_advisory_unlock" in str(call[2]):
            raise KeyboardInterrupt

    event.listen(store.engine, "before_cursor_execute", interrupt)
    with suppress(KeyboardInterrupt), unit_lock(store, "d1"):
        pass
    event.remove(store.engine, "before_cursor_execute", interrupt)
    waits: list[str] = []
    with unit_lock(store, "d1", waits.append):
        assert not waits


def test_a_wait_names_the_holder_and_ends_when_that_process_is_killed(store: Store) -> None:
    assert store.settings.database_url is not None
    with store.begin() as connection:
        connection.execute(text("INSERT INTO city (timezone, digest) VALUES ('Asia/Tokyo', sha256(''))"))
    arguments = [str(store.settings.home), store.settings.database_url]
    with subprocess.Popen([sys.executable, "-c", _LOCK, *arguments], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        lines: Queue[str] = Queue()
        done = threading.Event()

        def work() -> None:
            with unit_lock(store, "d1/s1", lines.put):
                done.set()

        waiting = threading.Thread(target=work)
        waiting.start()
        line = lines.get(timeout=60)
        # The login of this server is none of our roles, and is not told when.
        assert line == f"waiting for d1/s1: urban-reid resolve (process {other.pid}) has held it"
        assert not done.is_set()
        other.kill()
        waiting.join(timeout=60)
    assert done.is_set()
    assert lines.empty()  # one line for each holder
    pooled = [store.engine.connect() for _ in range(5)]
    assert {connection.scalar(text("SHOW lock_timeout")) for connection in pooled} == {"0"}
    for connection in pooled:
        connection.close()


def test_many_locks_and_transactions_at_once(store: Store) -> None:
    with ExitStack() as held:
        for unit in range(20):
            held.enter_context(unit_lock(store, f"d{unit}"))
            held.enter_context(store.begin())


def test_a_session_is_reused_for_the_next_lock(store: Store) -> None:
    sessions: set[int] = set()
    for unit in range(20):
        with unit_lock(store, f"d{unit}"), store.begin() as connection:
            held = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted")
            sessions |= set(connection.scalars(held))
    assert len(sessions) <= 3


def test_a_lock_is_released_at_once(store: Store) -> None:
    """A process that takes the lock again right away does not wait for itself."""
    told: list[str] = []
    for _ in range(20):
        for connection in [store.engine.connect() for _ in range(5)]:
            connection.close()  # into the pool, so that the next connections cost no time
        for _ in range(5):
            with unit_lock(store, "d1", told.append):
                pass
    assert told == []
