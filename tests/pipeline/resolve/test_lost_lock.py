"""A process that is suspended in the middle of a unit loses its lock; another one resolves the unit meanwhile."""

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.resolve import resolve_unit, runs, units_within
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from pipeline.store.locks import unit_lock
from schemas.errors import StoreUnavailable
from tests.helpers.homes import fresh_settings, unbound
from tests.helpers.thin_town import ThinTown, crowd
from tests.helpers.waiting import wait_until

CROWD = crowd(cameras=6, people=20)
_END_HOLDER = text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_TWICE = (
    "SELECT count(*) FROM (SELECT FROM run WHERE superseded_at IS NULL GROUP BY unit, window_start "
    "HAVING count(*) > 1) AS twice"
)


def digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection)


def test_who_holds_a_lock_can_see_that_it_was_lost(server: EmbeddedServer) -> None:
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store, unit_lock(store, "d1") as check:
        check()
        with unbound(server, settings) as superuser:
            assert superuser.execute(_END_HOLDER).rowcount == 1
        with pytest.raises(StoreUnavailable, match="the lock of d1 was lost with its connection; try again"):
            wait_until(check, 60)  # a session that is told to end is there for a moment


@pytest.mark.parametrize(("resolved_before", "within_a_transaction"), [(False, True), (True, False)])
def test_what_another_process_went_on_with_is_neither_twice_nor_otherwise(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, resolved_before: bool, within_a_transaction: bool
) -> None:
    monkeypatch.setattr(runs, "_CHUNK", 10)
    late = np.arange(len(CROWD.crops)) % 3 == 0
    with fresh_settings(server) as first, Store.open(first, "pytest") as store:
        undisturbed = ThinTown(store, CROWD)
        undisturbed.take_in()
        undisturbed.resolve()
        expected = digest(store)
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = ThinTown(store, CROWD)
        if resolved_before:
            town.take_in(np.flatnonzero(~late))
            town.resolve()
            town.take_in(np.flatnonzero(late))
        else:
            town.take_in()
        lost: set[str] = set()

        def suspend(unit: str) -> None:
            """Another process resolves the unit, once."""
            if unit not in lost:
                lost.add(unit)
                with unbound(server, settings) as superuser:
                    assert superuser.execute(_END_HOLDER).rowcount > 0
                town.resolve([unit])

        for unit in units_within(store, "d1"):

            def progress(done: int, of: int, unit: str = unit) -> None:
                if done < of and not within_a_transaction:
                    suspend(unit)

            def observe(*_: object, unit: str = unit) -> None:
                if within_a_transaction:
                    suspend(unit)

            try:
                resolve_unit(
                    store,
                    town.core,
                    town.model,
                    unit,
                    settings=settings.association,
                    progress=progress,
                    observe=observe,
                )
            except StoreUnavailable:
                town.resolve([unit])  # as `flows.work` does
        assert lost
        assert digest(store) == expected
        with store.begin() as connection:
            assert connection.scalar(text(_TWICE)) == 0
