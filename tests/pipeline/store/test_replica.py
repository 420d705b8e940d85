"""A streaming replica: reads that know all that was committed, and a promotion in place of a primary that is lost."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from psycopg2.errors import ReadOnlySqlTransaction
from sqlalchemy import make_url, text

from flows import resolve as flow
from flows.failures import call_unreported
from pipeline.city.decision_digest import decision_digest
from pipeline.resolve import resolve_unit, runs
from pipeline.resolve.runs import UnitResult
from pipeline.search.answer import answer
from pipeline.search.request import request_search
from pipeline.search.service import Searches
from pipeline.store import Store, roles
from pipeline.store.embedded_process import connect
from schemas.errors import StoreError, StoreUnavailable
from schemas.parameters import ResolveParameters, SearchParameters
from schemas.settings import Settings
from schemas.settings import settings as read_settings
from tests.helpers.homes import fresh_settings
from tests.helpers.pool import eventually
from tests.helpers.replica import Pair, streaming
from tests.helpers.thin_town import ThinTown, crowd
from tests.helpers.tls_proxy import OTHER_MACHINE, tls_proxy
from tests.helpers.town import Town

pytestmark = pytest.mark.system

_WHERE = text("SELECT pg_is_in_recovery()")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with streaming() as found:
        with closing(connect(found.primary, roles.OWNER, "urban_reid")) as connection, connection:
            connection.cursor().execute(
                f"CREATE TABLE note (n integer); GRANT ALL ON note TO {roles.WORKER}, {roles.APP}"
            )
        yield found


@pytest.fixture
def reading(pair: Pair) -> Iterator[Store]:
    with Store.open(pair.reading) as store:
        yield store


def _write(store: Store, statement: str) -> None:
    with store.begin() as connection:
        connection.execute(text(statement))


def _count(store: Store) -> tuple[bool, int]:
    """Whether the replica was read, and how many notes there are."""
    with store.signed_in(only_reads=True) as connection:
        found = bool(connection.scalar(_WHERE)), int(connection.execute(text("SELECT count(*) FROM note")).scalar_one())
        assert connection.scalar(text("SELECT current_user")) == roles.APP
    return found


def _reason(store: Store) -> str:
    with store.begin(only_reads=True) as connection:
        assert connection.scalar(_WHERE) is False
        return str(connection.get_execution_options()["instead"])


def test_a_read_knows_all_that_was_committed_before_it(reading: Store) -> None:
    for n in range(20):
        _write(reading, f"INSERT INTO note VALUES ({n})")
        assert _count(reading) == (True, n + 1)
    _write(reading, "DELETE FROM note")
    assert _count(reading) == (True, 0)
    state = reading.replica_state()
    assert state is not None and (state.behind_bytes, state.reason) == (0, "")


def test_nothing_is_written_where_only_reads_were_asked_for(pair: Pair, reading: Store) -> None:
    with Store.open(pair.settings) as plain:
        for store in (reading, plain):
            with pytest.raises((StoreError, StoreUnavailable)) as refusal, store.begin(only_reads=True) as connection:
                connection.execute(text("INSERT INTO note VALUES (1)"))
            assert isinstance(refusal.value.__cause__.orig, ReadOnlySqlTransaction)  # type: ignore[union-attr]


def test_what_a_replica_that_is_behind_still_holds_is_not_shown(pair: Pair) -> None:
    """Erased on the primary, and not yet on the replica: the primary is read, and the answer says why."""
    with (
        Store.open(pair.reading) as store,
        Store.open(pair.reading.model_copy(update={"replica_wait_s": 0.2})) as hasty,
    ):
        _write(store, "INSERT INTO note VALUES (1)")
        assert _count(hasty) == (True, 1)
        pair.on_replica("SELECT pg_wal_replay_pause()")
        try:
            _write(store, "DELETE FROM note")
            assert _count(hasty) == (False, 0)
            assert _reason(hasty) == "it was behind for more than 0.2 s"
            state = hasty.replica_state()
            assert state is not None and state.behind_bytes and "behind" in state.reason
        finally:
            pair.on_replica("SELECT pg_wal_replay_resume()")
        eventually(lambda: _count(hasty) == (True, 0))


def test_a_server_that_is_no_replica_of_the_primary_is_not_read(pair: Pair, server: Any, settings: Settings) -> None:
    for url, reason in (
        (pair.settings.database_url, "it is no replica"),
        ("postgresql://me:secret@127.0.0.1:1/city", "it does not answer (OperationalError)"),
    ):
        with Store.open(pair.settings.model_copy(update={"replica_url": url})) as store:
            assert _reason(store) == reason
    replica = make_url(pair.replica_url)
    with tls_proxy(f"{replica.query['host']}/.s.PGSQL.{replica.query.get('port', 5432)}", None) as port:
        plain = replica.set(host=OTHER_MACHINE, port=port, query={}).render_as_string(hide_password=False)
        with Store.open(pair.settings.model_copy(update={"replica_url": plain})) as store:
            reason = _reason(store)
            assert reason.startswith("it cannot be used: ") and "does not support SSL" in reason
    with fresh_settings(server) as other:
        asked = other.model_copy(update={"replica_url": pair.replica_url})
        with Store.open(asked) as store:
            assert _reason(store) == "it is the replica of another database"


def test_an_embedded_database_has_no_replica(pair: Pair) -> None:
    with pytest.raises(StoreError, match="the embedded database has no replica"):
        Store.open(Settings(home=pair.settings.home, replica_url=pair.replica_url))


def test_a_search_reads_the_replica_and_writes_to_the_primary(
    pair: Pair, city_files: Path, model_folder: Path, lines: list[str]
) -> None:
    with Store.open(pair.settings) as plain, Store.open(pair.reading, "a reader") as store:
        town = Town(plain, city_files, model_folder)
        town.take_in(lines[:40])
        town.resolve()
        key = _some_crop(plain)
        asked = SearchParameters(unit="d1", crop_key=key, reason="case 17", operator="me", top=3)
        expected = answer(plain, lambda _: town.core, town.crops, request_search(plain, town.model, asked)).result
        assert expected.hits
        warm = Searches(store)
        for found in (
            answer(store, lambda _: town.core, town.crops, request_search(store, town.model, asked)).result,
            warm.answer(request_search(store, town.model, asked)).result,
        ):
            assert found == expected
        assert pair.on_replica("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'a reader%'") == 2
        with plain.begin() as connection:
            done = "SELECT count(*) FROM search_request WHERE finished_at IS NOT NULL"
            assert connection.execute(text(done)).scalar_one() == 3
        impatient = pair.reading.model_copy(update={"replica_wait_s": 0.0})
        pair.on_replica("SELECT pg_wal_replay_pause()")
        try:
            with Store.open(impatient) as hasty:
                request = request_search(hasty, town.model, asked)
                late = answer(hasty, lambda _: town.core, town.crops, request).result
        finally:
            pair.on_replica("SELECT pg_wal_replay_resume()")
        assert late.hits == expected.hits
        assert late.note == "The database itself was read, because its replica was behind or away."


def _some_crop(store: Store) -> str:
    with store.begin() as connection:
        found: str = connection.execute(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1")).scalar_one()
    return found


@pytest.fixture(scope="module")
def undisturbed(server: Any) -> str:
    """The digest of the city that a promotion disturbs below."""
    with fresh_settings(server) as settings, Store.open(settings) as store:
        town = ThinTown(store, crowd())
        town.take_in()
        town.resolve()
        with store.begin() as connection:
            return decision_digest(connection, "d1")


@pytest.fixture
def doomed() -> Iterator[tuple[Pair, ThinTown]]:
    """A pair of its own whose replica is going to take the primary's place, and a city that both hold."""
    with streaming() as pair, Store.open(pair.both, "resolve") as store:
        town = ThinTown(store, crowd())
        town.take_in()
        pair.catch_up()
        yield pair, town


def _digest(store: Store) -> str:
    with store.begin() as connection:
        return decision_digest(connection, "d1")


def test_a_resolve_looks_again_for_commits_that_a_promoted_replica_lacks(
    doomed: tuple[Pair, ThinTown], undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first eight units the replica has four; the other four are lost after their task has ended."""
    pair, town = doomed
    done: list[str] = []
    turn = Lock()

    def then_promoted(store: Store, core: Any, model: Any, unit: str, **rest: Any) -> UnitResult:
        with turn:
            result = resolve_unit(store, core, model, unit, **rest)
            done.append(unit)
            if len(done) == 4:
                pair.catch_up()
                pair.cut()
            if len(done) == 8:
                pair.promote()
            return result

    monkeypatch.setattr(flow, "resolve_unit", then_promoted)
    monkeypatch.setenv("URBAN_REID_HOME", str(pair.settings.home))
    monkeypatch.setenv("URBAN_REID_DATABASE_URL", str(pair.both.database_url))
    read_settings.cache_clear()
    try:
        found = call_unreported(flow.district, ResolveParameters(unit="d1"))
    finally:
        read_settings.cache_clear()
    assert len(done) > len(set(done))  # some units twice: those that were lost
    assert found.digest == _digest(town.store) == undisturbed


def test_a_unit_whose_first_windows_were_lost_is_not_settled(
    doomed: tuple[Pair, ThinTown], undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, town = doomed
    monkeypatch.setattr(runs, "_CHUNK", 5)
    pair.cut()
    promoted: list[bool] = []

    def promote(done: int, windows: int) -> None:
        if not promoted:
            assert done < windows
            pair.promote()
            promoted.append(True)

    camera = town.crowd.cameras[0]
    settings = town.store.settings.association
    with pytest.raises(StoreUnavailable, match=f"took the database's place while {camera} was resolved"):
        resolve_unit(town.store, town.core, town.model, camera, settings=settings, progress=promote)
    town.resolve()
    assert _digest(town.store) == undisturbed
