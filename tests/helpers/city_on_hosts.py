"""A rendered city on several hosts, and what is done to them while it is resolved.

Two workers resolve a district at once. A fault comes in the middle; afterwards the city must be as an undisturbed
resolve leaves it: the same decision digest, no row lost and none twice.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import reid_core
from pipeline.city.status import status
from pipeline.store import Store
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city, write_city
from tests.helpers.command_line import messages_of, program
from tests.helpers.homes import new_home, remove_home
from tests.helpers.hosts import Host, Network
from tests.helpers.services import Objects, Postgres, Prefect, waited_for

_PATIENCE_S = 600.0
_CURRENT = "(SELECT id FROM run WHERE superseded_at IS NULL)"
#: Rows that an undisturbed resolve leaves, by table.
_ROWS = {
    "crop": "crop",
    "crop_embedding": "crop_embedding",
    "run": "run WHERE superseded_at IS NULL",
    "identity": f"identity WHERE run_id IN {_CURRENT}",
    "match_decision": f"match_decision WHERE run_id IN {_CURRENT}",
    "prototype": f"prototype p JOIN identity i ON i.id = p.identity_id WHERE i.run_id IN {_CURRENT}",
}


@dataclass(frozen=True)
class State:
    """What the database holds when all has ended."""

    digest: str
    pending: int
    rows: dict[str, int]


@dataclass(frozen=True)
class Recovery:
    """How a fault went.

    seen: what the workers' users were told, a line each; empty where nothing was to be seen.
    seconds: from the end of the fault, or from the fault where it has none, until all workers that live have ended.
    """

    fault: str
    seen: tuple[str, ...]
    seconds: float
    state: State


class CityOnHosts:
    """A context manager: the services, each on a host, and a database with the city's crops, none of them resolved."""

    def __init__(self, lost_s: int = 30) -> None:
        """lost_s: how long Prefect hears nothing of a worker until that is taken for lost."""
        self.lost_s = lost_s
        self.network = Network()

    def __enter__(self) -> Self:
        self._root = new_home()
        try:
            self.network.__enter__()
            self._desk = self.network.host("desk")
            self.database = Postgres.new(self.network.host("database"), self._disk("database"))
            self.objects = Objects(self.network.host("objects"), self._disk("objects"))
            self.prefect = Prefect(self.network.host("prefect"), self._disk("prefect-server"))
            self._fill()
            self.undisturbed = self._undisturbed()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.network.__exit__()
        remove_home(self._root)

    def _disk(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir(mode=0o711)
        return folder

    def _fill(self) -> None:
        home = self._disk("desk")
        self.database.make_city(home)
        files = self._root / "files"
        write_city(simulate_city(3, people=8, duration_s=900), files)
        for command in (
            ("city", "load", str(files / "city.yaml")),
            ("models", "register", "demo", str(reid_core.DEMO_MODEL)),
            ("models", "use", "demo"),
            ("ingest", "manifest", str(files / "manifest.jsonl")),
        ):
            self._desk.run(*program(*command), env=self._environment(home, self.database.url("city")), cwd=home)

    def _environment(self, home: Path, database_url: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        own = {
            "URBAN_REID_HOME": str(home),
            "URBAN_REID_OPERATOR": "tester",
            "URBAN_REID_ENGINE": "torch",
            "URBAN_REID_DATABASE_URL": database_url,
            "OMP_NUM_THREADS": "1",
        }
        return inherited | self.prefect.client_environment() | self.objects.client_environment() | own

    def _undisturbed(self) -> State:
        with self.city("undisturbed") as city:
            began = time.monotonic()
            assert city.ended(city.resolve("a")) == ()
            self.undisturbed_s = time.monotonic() - began
            return city.state()

    @contextmanager
    def city(self, name: str, server: Postgres | None = None) -> Iterator["City"]:
        """A database of its own with the city's crops; `server`: another one than the usual, which holds the city."""
        at = server or self.database
        with at.superuser() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE city")
        yield City(self, name, at)

    def copy_of_database(self, name: str, of: Postgres | None = None, *, follows: bool = False) -> Postgres:
        """A server with the same databases on another host."""
        return (of or self.database).copy_of(self.network.host(name), self._disk(name), follows=follows)

    def worker(self, name: str) -> tuple[Host, Path]:
        """A host with what each machine of a city is given: models and the key file."""
        home = self._disk(name)
        for left in ("models", "key-file"):
            source = self._root / "desk" / left
            if source.is_dir():
                shutil.copytree(source, home / left)
            else:
                shutil.copy(source, home / left)
        return self.network.host(name), home


class City:
    """One database with the city's crops, and the workers that resolve it."""

    def __init__(self, whole: CityOnHosts, name: str, server: Postgres) -> None:
        self.whole, self.name, self.server = whole, name, server
        self.url = server.url(name)
        self.workers: dict[str, Host] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._logs: dict[str, Path] = {}

    def resolve(self, letter: str) -> str:
        """Begins `urban-reid resolve` on a host of its own; returns `letter`, by which it is known here."""
        host, home = self.whole.worker(f"{self.name[:13]}-{letter}")
        self.workers[letter] = host
        environment = self.whole._environment(home, self.url)
        self._running[letter] = host.start(*program("resolve", "--unit", "d1", "--json"), env=environment, cwd=home)
        return letter

    def serve(self, *letters: str) -> None:
        """Begins `urban-reid worker` on hosts of their own."""
        for letter in letters:
            host, home = self.whole.worker(f"{self.name[:13]}-{letter}")
            self.workers[letter], self._logs[letter] = host, home / "worker-resolve.log"
            own = {"URBAN_REID_HOST_NAME": letter, "URBAN_REID_HOST_LOST_S": str(self.whole.lost_s)}
            environment = self.whole._environment(home, self.url) | own
            command = program("worker", "--role", "resolve", "--runs", "1")
            host.start(*command, env=environment, cwd=home, log=home / "worker.out")

    def hand_over(self) -> str:
        """Hands a resolve over to the workers, once one is there. Returns by which letter it was taken."""
        home = self.whole._root / "desk"
        environment = self.whole._environment(home, self.url) | {"URBAN_REID_FLOWS": "workers"}

        def handed_over() -> bool:
            command = program("resolve", "--unit", "d1", "--no-wait", "--json")
            process = self.whole._desk.start(*command, env=environment, cwd=home)
            process.communicate()
            return process.returncode == 0

        waited_for(handed_over, "a worker")
        at_work = (
            "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'urban-reid flow%'"
        )
        address = waited_for(lambda: self._one(f"SELECT host(client_addr) {at_work} LIMIT 1"), "a run to begin")
        return next(letter for letter, host in self.workers.items() if host.address == address)

    def _one(self, sql: str) -> Any:
        with self.server.superuser(self.name) as cursor:
            cursor.execute(sql)
            found = cursor.fetchone()
        return None if found is None else found[0]

    def is_resolved(self) -> bool:
        """Whether no window waits: that of a unit is marked in the commit which resolves those below it."""
        return not self._one("SELECT count(*) FROM watermark WHERE dirty_from IS NOT NULL")

    def told(self, letter: str, part: str) -> tuple[str, ...]:
        """The lines of a worker's log that hold `part`, without what stands before."""
        lines = self._logs[letter].read_text(errors="replace").splitlines()
        return tuple(line.rpartition(": ")[2] for line in lines if part in line)

    def lives(self, letter: str) -> bool:
        return self._running[letter].poll() is None

    def ended(self, *letters: str) -> tuple[str, ...]:
        """Waits for the end of these; what they said but for whom they waited, each line once."""
        said: list[str] = []
        for letter in letters:
            out, errors = self._running[letter].communicate(timeout=_PATIENCE_S)
            if self._running[letter].returncode == 0:
                json.loads(out)
            said += [line for line in messages_of(errors) if not line.startswith("waiting for ")]
        return tuple(dict.fromkeys(said))

    def wait_for(self, table: str, *, by: str) -> None:
        """Waits until something is written there, while `by` is at work."""
        waited_for(
            lambda: self.server.scalar(f"SELECT EXISTS (SELECT FROM {table})", self.name),
            f"{table} of {self.name}",
            self._running[by],
        )

    def state(self) -> State:
        rows = {name: self.server.scalar(f"SELECT count(*) FROM {sql}", self.name) for name, sql in _ROWS.items()}
        settings = Settings(home=self.whole._root / "desk", database_url=self.server.url(self.name))
        with self.whole._desk.entered(), Store.open(settings, "desk") as store:
            found: dict[str, Any] = status(store)
        return State(found["digest"], found["pending"], rows)


# ---- faults


def a_worker_loses_its_power(whole: CityOnHosts, _: float) -> Recovery:
    with whole.city("power") as city:
        a, b = city.resolve("a"), city.resolve("b")
        city.wait_for("run", by=a)
        city.workers[a].kill()
        began = time.monotonic()
        return _recovery("a worker's host loses its power", city, began, b)


def a_worker_is_suspended(whole: CityOnHosts, seconds: float) -> Recovery:
    with whole.city("suspended") as city:
        a, b = city.resolve("a"), city.resolve("b")
        city.wait_for("run", by=a)
        city.workers[a].suspend()
        assert city.lives(a), "the fault came too late"
        time.sleep(seconds)  # the fault itself
        city.workers[a].resume()
        return _recovery(f"a worker's host is suspended for {seconds:.0f} s", city, time.monotonic(), a, b)


def a_worker_of_prefect_loses_its_power(whole: CityOnHosts, _: float) -> Recovery:
    """`urban-reid worker` on two hosts; the one that has the run dies."""
    with whole.city("worker_power") as city:
        city.serve("a", "b")
        taken_by = city.hand_over()
        waited_for(lambda: city._one("SELECT EXISTS (SELECT FROM run)"), "windows to be resolved")
        city.workers[taken_by].kill()
        assert not city.is_resolved(), "the fault came too late"
        return _taken_over("the host of the worker that has the run loses its power", city, taken_by)


def a_worker_is_cut_off_from_prefect(whole: CityOnHosts, seconds: float) -> Recovery:
    """Prefect takes it for lost while it goes on; another one begins the run again."""
    with whole.city("worker_cut") as city:
        city.serve("a", "b")
        taken_by = city.hand_over()
        whole.network.cut(city.workers[taken_by], whole.prefect.host)
        time.sleep(seconds)  # the fault itself
        whole.network.mend(city.workers[taken_by], whole.prefect.host)
        return _taken_over(f"Prefect is cut off from the worker that has the run for {seconds:.0f} s", city, taken_by)


def _taken_over(fault: str, city: City, taken_by: str) -> Recovery:
    began = time.monotonic()
    other = next(letter for letter in city.workers if letter != taken_by)
    waited_for(city.is_resolved, "the end of the resolve")
    seconds = time.monotonic() - began
    said = city.told(other, "was lost")
    for host in city.workers.values():
        host.kill()
    return Recovery(fault, said, seconds, city.state())


def _cut(
    whole: CityOnHosts, name: str, what: str, where: Host, seconds: float, table: str, letters: str = "a"
) -> Recovery:
    """Cuts the first of some workers off from a service, once there are rows in a table."""
    with whole.city(name) as city:
        for letter in letters:
            city.resolve(letter)
        city.wait_for(table, by="a")
        whole.network.cut(city.workers["a"], where)
        assert city.lives("a"), "the fault came too late"
        time.sleep(seconds)  # the fault itself
        whole.network.mend(city.workers["a"], where)
        return _recovery(f"{what} is cut off from a worker for {seconds:.0f} s", city, time.monotonic(), *letters)


def the_database_is_cut_off(whole: CityOnHosts, seconds: float) -> Recovery:
    """Another worker goes on meanwhile."""
    return _cut(whole, "cut_database", "the database", whole.database.host, seconds, "run", "ab")


def prefect_is_cut_off(whole: CityOnHosts, seconds: float) -> Recovery:
    return _cut(whole, "cut_prefect", "Prefect", whole.prefect.host, seconds, "run")


def the_object_store_is_cut_off(whole: CityOnHosts, seconds: float) -> Recovery:
    return _cut(whole, "cut_objects", "the object store", whole.objects.host, seconds, "crop_embedding")


def the_object_store_is_away(whole: CityOnHosts, seconds: float) -> Recovery:
    with whole.city("away") as city:
        a, b = city.resolve("a"), city.resolve("b")
        city.wait_for("crop_embedding", by=a)
        whole.objects.host.unplug()
        assert city.lives(a), "the fault came too late"
        time.sleep(seconds)  # the fault itself
        whole.objects.host.plug()
        return _recovery(f"the object store is away for {seconds:.0f} s", city, time.monotonic(), a, b)


def the_replica_is_promoted(whole: CityOnHosts, _: float) -> Recovery:
    """The database's host loses its power; the address names both hosts."""
    first, second = _pair(whole, "listed")
    with whole.city("promoted", first) as city:
        city.url = first.url(city.name, second)
        return _promote(city, second, "the database's host dies, its replica is promoted (an address of both)")


def the_address_moves(whole: CityOnHosts, _: float) -> Recovery:
    """The database's host loses its power; its replica gets the address by which it is known."""
    first, second = _pair(whole, "moving")
    address = "10.77.0.250"
    first.host.take(address)
    with whole.city("moved", first) as city:
        city.url = first.url(city.name, at=address)
        return _promote(
            city,
            second,
            "the database's host dies, its replica is promoted (the address moves)",
            lambda: second.host.take(address),
        )


def _pair(whole: CityOnHosts, name: str) -> tuple[Postgres, Postgres]:
    """A server with the city, and a replica that has each commit before it is answered."""
    first = whole.copy_of_database(f"{name}-1")
    second = whole.copy_of_database(f"{name}-2", first, follows=True)
    first.wait_for_copy(second)
    return first, second


def _promote(city: City, second: Postgres, what: str, moved: Callable[[], None] = lambda: None) -> Recovery:
    a, b = city.resolve("a"), city.resolve("b")
    city.wait_for("run", by=a)
    city.server.host.kill()
    assert city.lives(a), "the fault came too late"
    began = time.monotonic()
    moved()
    second.promote()
    city.server = second
    return _recovery(what, city, began, a, b)


def _recovery(fault: str, city: City, since: float, *left: str) -> Recovery:
    said = city.ended(*left)
    return Recovery(fault, said, time.monotonic() - since, city.state())


FAULTS: tuple[Callable[[CityOnHosts, float], Recovery], ...] = (
    a_worker_loses_its_power,
    a_worker_is_suspended,
    a_worker_of_prefect_loses_its_power,
    a_worker_is_cut_off_from_prefect,
    the_database_is_cut_off,
    prefect_is_cut_off,
    the_object_store_is_cut_off,
    the_object_store_is_away,
    the_replica_is_promoted,
    the_address_moves,
)
