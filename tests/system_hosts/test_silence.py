"""A network that drops packets, and a host that is gone, between the program and its database: nobody waits for ever.

All that happens here happens at once, because each takes as long as both sides' patience.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from pipeline.store.silence import SILENCE_S
from schemas.errors import StoreUnavailable
from schemas.settings import Settings
from tests.helpers.hosts import Host, Network
from tests.helpers.services import Postgres, waited_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

#: Holds a lock and has written a row, until its host is killed.
_HOLDER = """
import threading
from sqlalchemy import Connection, event, text
from pipeline.store import Store
from pipeline.store.locks import unit_lock
from schemas.settings import settings

with Store.open(settings(), "holder") as store, unit_lock(store, "d1"), store.begin() as connection:
    connection.execute(text("INSERT INTO urban_unit (code) VALUES ('d2')"))
    print("held", flush=True)
    threading.Event().wait()
"""


class Place:
    """A database server, and the network in which it stands."""

    def __init__(self, network: Network, disk: Callable[[str], Path]) -> None:
        self.network, self._disk = network, disk
        self.database = Postgres.new(network.host("database"), disk("database"))
        self.database.make_city(disk("owner"))

    def worker(self, name: str) -> tuple[Host, Settings]:
        settings = Settings(home=self._disk(name), database_url=self.database.url("city"))
        return self.network.host(name), settings

    def count(self, sql: str) -> int:
        return int(self.database.scalar(f"SELECT count(*) FROM {sql}", "city"))


@pytest.fixture(scope="module")
def place(network: Network, disk: Callable[[str], Path]) -> Place:
    return Place(network, disk)


def the_answer_is_lost(place: Place) -> str:
    """The server commits, and its answer does not arrive."""
    worker, settings = place.worker("answer")
    with worker.entered(), Store.open(settings, "answer") as store:
        lose_at_commit(store, place.database.host, worker)
        write(store, "answer")
    return "told that it is written"


def the_request_is_lost(place: Place) -> str:
    """The commit does not arrive at the server."""
    worker, settings = place.worker("request")
    with worker.entered(), Store.open(settings, "request") as store:
        lose_at_commit(store, worker, place.database.host)
        with pytest.raises(StoreUnavailable) as told:
            write(store, "request")
    return str(told.value)


def write(store: Store, actor: str) -> None:
    with store.begin() as connection:
        audit(connection, actor, Action.PEOPLE_SHOW, unit="d1", details={})


def lose_at_commit(store: Store, sender: Host, receiver: Host) -> None:
    """From the next commit on, what one host sends to the other is lost, until both have given the connection up."""

    def lose(_: Connection) -> None:
        sender.drop(receiver)
        threading.Timer(SILENCE_S + 5.0, sender.undrop, [receiver]).start()

    event.listen(store.engine, "commit", lose, once=True)


def a_query_is_cut_off(place: Place) -> str:
    """The network is cut while the server computes, and is not mended."""
    worker, settings = place.worker("query")
    cut = threading.Timer(1.0, place.network.cut, [worker, place.database.host])
    with (
        worker.entered(),
        Store.open(settings, "query") as store,
        pytest.raises(StoreUnavailable) as told,
        store.begin() as connection,
    ):
        cut.start()
        connection.execute(text("SELECT pg_sleep(600)"))
    return str(told.value)


def who_held_a_lock_is_gone(place: Place) -> str:
    """A host that holds a unit's lock and has written a row loses its power."""
    dead, its = place.worker("dead")
    worker, settings = place.worker("next")
    variables = {"URBAN_REID_HOME": str(its.home), "URBAN_REID_DATABASE_URL": str(its.database_url)}
    holder = dead.start(sys.executable, "-P", "-c", _HOLDER, env=variables, cwd=Path.cwd())
    assert holder.stdout is not None and holder.stdout.readline() == "held\n", holder.communicate()
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            dead.kill()

    with (
        worker.entered(),
        Store.open(settings, "next") as store,
        unit_lock(store, "d1", tell),
        store.begin() as connection,
    ):
        connection.execute(text("INSERT INTO urban_unit (code) VALUES ('d2')"))
    return said[0]


@pytest.fixture(scope="module")
def told(place: Place) -> Iterator[dict[str, "Future[str]"]]:
    """What each of these came to, all at once."""
    cases: list[Callable[[Any], str]] = [
        the_answer_is_lost,
        the_request_is_lost,
        a_query_is_cut_off,
        who_held_a_lock_is_gone,
    ]
    with ThreadPoolExecutor(len(cases)) as threads:
        yield {case.__name__: threads.submit(case, place) for case in cases}


def test_a_commit_whose_answer_is_lost_is_known_to_be_done(place: Place, told: dict[str, "Future[str]"]) -> None:
    assert told["the_answer_is_lost"].result() == "told that it is written"
    assert place.count("audit WHERE actor = 'answer'") == 1


def test_a_commit_that_did_not_arrive_is_known_not_to_be_done(place: Place, told: dict[str, "Future[str]"]) -> None:
    assert "does not answer: could not receive data from server" in told["the_request_is_lost"].result()
    assert place.count("audit WHERE actor = 'request'") == 0


def test_a_query_that_is_cut_off_ends_and_so_does_its_session(place: Place, told: dict[str, "Future[str]"]) -> None:
    assert "does not answer: could not receive data from server" in told["a_query_is_cut_off"].result()
    sessions = "pg_stat_activity WHERE application_name LIKE 'query%' AND state = 'idle'"
    waited_for(lambda: place.count(sessions) == 0, "the end of the sessions of who is cut off")


def test_what_a_dead_host_held_is_free_again(place: Place, told: dict[str, "Future[str]"]) -> None:
    assert "waiting for d1: holder" in told["who_held_a_lock_is_gone"].result()
    assert place.count("urban_unit WHERE code = 'd2'") == 1
