"""Hosts that share a database: each camera is one host's, by lease and lock, and goes to another when that is lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, text

from pipeline.cameras.hosts import OWN_SESSION_S, CameraHost, read_holders, read_hosts
from pipeline.cameras.rows import remove_feed, write_feed
from pipeline.cameras.service import Service
from pipeline.city.units import store_city
from pipeline.store import Store, embedded
from schemas.city_file import City
from schemas.errors import InputError, StoreUnavailable
from schemas.feeds import Feed
from schemas.settings import Settings
from tests.helpers.homes import unbound
from tests.helpers.waiting import wait_until

CAMERAS = ["d1/s1/b1/c1", "d1/s1/b1/c2", "d1/s1/b2/c1", "d1/s1/b2/c2"]
PATIENCE_S = 120.0
#: A lease that expires by itself while a test waits for it, and one that does not.
SHORT_S, LONG_S = 1, 3600

Make = Callable[..., CameraHost]


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    codes = {parent for camera in CAMERAS for parent in ("d1", "d1/s1", camera.rpartition("/")[0], camera)}
    with Store.open(settings, "pytest") as opened:
        store_city(opened, City.model_validate({"units": [{"code": code} for code in sorted(codes)]}))
        yield opened


@pytest.fixture
def make(store: Store) -> Iterator[Make]:
    """Makes hosts, each with connections of its own."""
    with store.begin() as connection:
        for camera in CAMERAS:
            write_feed(connection, Feed(camera=camera, address="rtsp://10.0.0.5/stream"))
    with ExitStack() as ends:

        def made(name: str, lost_s: float = LONG_S, looks_per_s: float = 40) -> CameraHost:
            settings = store.settings.model_copy(update={"host_name": name, "host_lost_s": lost_s})
            return CameraHost(ends.enter_context(Store.open(settings, f"host {name}")), looks_per_s)

        yield made


def renewed(host: CameraHost, running: set[str] | None = None) -> set[str]:
    return host.renew({}, running or set())


def until(done: Callable[[], Any]) -> Any:
    return wait_until(done, PATIENCE_S)


def age(connection: Connection) -> None:
    """Makes all hosts and leases so old that they have expired."""
    connection.execute(text("UPDATE camera_host SET seen_at = seen_at - interval '2 hours'"))
    connection.execute(text("UPDATE camera_lease SET until = until - interval '2 hours'"))


def test_each_camera_is_one_hosts(make: Make, store: Store) -> None:
    a, b = make("a"), make("b")
    assert renewed(a) == set(CAMERAS), "there is no other host yet"
    assert renewed(b) == set(), "cameras move for evenness only when they have settled"
    with store.begin() as connection:
        connection.execute(text("UPDATE camera_lease SET dealt_at = dealt_at - interval '2 minutes'"))
    assert renewed(b) == set(), "a looks at them, and has not given any back"
    with store.begin() as connection:
        assert set(read_holders(connection).values()) == {"a"}
    mine = renewed(a, set(CAMERAS))
    (moved,) = set(CAMERAS) - mine
    assert renewed(b) == set(), "until it has ended there"
    a.give_back([moved])
    assert renewed(b) == {moved} and renewed(a, mine) == mine
    with store.begin() as connection:
        assert read_holders(connection) == dict.fromkeys(mine, "a") | {moved: "b"}
        assert [(host.name, host.cameras) for host in read_hosts(connection)] == [("a", 3), ("b", 1)]


def test_a_camera_that_could_not_be_given_back_is_at_the_next_call(make: Make, store: Store) -> None:
    a, b = make("a"), make("b")
    assert renewed(a) == set(CAMERAS) and renewed(b) == set()
    with store.begin() as connection:
        connection.execute(text("UPDATE camera_lease SET host = 'b' WHERE camera = :one"), {"one": CAMERAS[0]})
    assert renewed(a, set(CAMERAS)) == set(CAMERAS[1:]) and renewed(b) == set()
    # a ends it, and the database does not answer `give_back`.
    assert renewed(a, set(CAMERAS[1:])) == set(CAMERAS[1:])
    assert renewed(b) == {CAMERAS[0]}


def test_a_host_that_could_not_renew_keeps_no_lock_of_cameras_that_it_has_ended(make: Make, store: Store) -> None:
    a, b = make("a", LONG_S), make("b")
    service = Service(a._store, host=a)
    assert renewed(a) == set(CAMERAS)
    a._renewed_at -= LONG_S
    with store.begin() as connection:
        age(connection)
    assert renewed(b) == set(), "a has their locks"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "_follow_feeds", lambda: None)
        service.step()
    assert renewed(b) == set(CAMERAS)


def test_a_killed_hosts_cameras_go_to_another_once_their_leases_have_expired(make: Make, store: Store) -> None:
    a, b = make("a"), make("b")
    assert renewed(a) == set(CAMERAS)
    a.drop_locks()
    assert renewed(b) == set(), "its locks are free, and its leases hold"
    with store.begin() as connection:
        age(connection)
    assert renewed(b) == set(CAMERAS)
    with store.begin() as connection:
        assert [host.name for host in read_hosts(connection)] == ["b"]
    assert renewed(a) == set(), "it comes back, and has none"


def test_leases_expire_by_themselves(make: Make) -> None:
    a, b = make("a", SHORT_S), make("b", SHORT_S)
    assert renewed(a) == set(CAMERAS)
    a.drop_locks()
    until(lambda: renewed(b) == set(CAMERAS))


def test_a_host_that_is_stuck_keeps_its_cameras_from_others(make: Make, store: Store) -> None:
    a, b = make("a"), make("b")
    assert renewed(a) == set(CAMERAS)
    with store.begin() as connection:
        age(connection)
    assert renewed(b) == set(), "its leases have expired, and its locks hold: it may look"
    a.drop_locks()
    assert renewed(b) == set(CAMERAS)


def test_a_host_knows_when_its_leases_are_old(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make("a", 100)
    began, passed_s = time.clock_gettime(time.CLOCK_BOOTTIME), 0.0
    monkeypatch.setattr("time.clock_gettime", lambda clock: began + (passed_s if clock == time.CLOCK_BOOTTIME else 0))
    asked = [a.must_ask]  # it has none yet
    renewed(a)
    asked.append(a.must_ask)
    assert a.kill_in_s == pytest.approx(80)
    passed_s = 51.0
    asked.append(a.must_ask)
    assert asked == [True, False, True] and a.kill_in_s == pytest.approx(29)


def test_a_connection_that_is_lost_is_made_again_with_its_locks(
    make: Make, store: Store, server: embedded.EmbeddedServer
) -> None:
    a, b = make("a"), make("b")
    assert renewed(a) == set(CAMERAS)
    with unbound(server, store.settings) as connection:
        named = "FROM pg_stat_activity WHERE application_name LIKE 'host a %'"
        assert connection.scalar(text(f"SELECT count(pg_terminate_backend(pid)) {named}"))
    assert renewed(a, set(CAMERAS)) == set(CAMERAS)
    assert renewed(b) == set()
    with store.begin() as connection:
        age(connection)
    assert renewed(b) == set(), "a has its locks again"


def test_two_processes_do_not_have_one_name(make: Make) -> None:
    first, other = make("a"), make("a")
    assert renewed(first) == set(CAMERAS)
    with pytest.raises(StoreUnavailable, match="this host's own from before its connection was lost or another"):
        renewed(other)
    assert other._name_taken_at is not None
    other._name_taken_at -= OWN_SESSION_S
    with pytest.raises(InputError, match="another process runs cameras as host a"):
        renewed(other)
    first.leave(CAMERAS)
    assert renewed(other) == set(CAMERAS) and other._name_taken_at is None


def test_a_host_that_ends_leaves_its_cameras_at_once(make: Make, store: Store) -> None:
    a, b = make("a"), make("b")
    assert renewed(a) == set(CAMERAS)
    a.leave(CAMERAS)
    assert renewed(b) == set(CAMERAS)
    with store.begin() as connection:
        remove_feed(connection, CAMERAS[0])
    assert renewed(b, set(CAMERAS)) == set(CAMERAS[1:])


def test_what_a_camera_asks_for_is_measured_by_its_host(make: Make, store: Store) -> None:
    a, b = make("a", looks_per_s=100), make("b", looks_per_s=0)
    assert renewed(b) == set(), "0 looks a second: no camera"
    assert renewed(a) == set(CAMERAS)
    a.renew({CAMERAS[0]: 12.5}, set(CAMERAS))
    b.renew({CAMERAS[1]: 99.0}, set())  # it does not have that one
    with store.begin() as connection:
        assert [(host.asked_per_s, host.looks_per_s) for host in read_hosts(connection)] == [(27.5, 100), (0, 0)]
        write_feed(connection, Feed(camera=CAMERAS[0], address="rtsp://10.0.0.5/stream", paused=True))
    with store.begin() as connection:
        assert read_hosts(connection)[0].asked_per_s == 15


def test_without_the_database_nothing_is_renewed(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": "postgresql://me@127.0.0.1:1/city"})
    host = CameraHost(Store(nowhere, "host a"), 40)
    with pytest.raises(StoreUnavailable):
        renewed(host)
    assert host.must_ask
