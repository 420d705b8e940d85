"""Which processes behind the pages do not answer, and since when; looked at beside the pages, all the time."""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread

import httpx
from sqlalchemy import text

from flows.server_process import read_record
from pipeline.search.client import socket_path as search_socket
from pipeline.store import Store
from reid_core.serving.client import CoreClient
from reid_core.serving.wire import socket_path as core_socket
from schemas.disk import is_held
from schemas.errors import UrbanReidError
from schemas.settings import Settings

_LOOK_EVERY_S = 1.0
#: A database that takes longer than this to say anything is away: it is being started again.
_SOON_S = 2.0
#: Prefect's server is slow on a busy machine.
_PREFECT_WITHIN_S = 5.0
#: What was never there since the console began is missed only from then on: `up` starts one after another.
_STARTS_WITHIN_S = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Away:
    """A part that does not answer."""

    part: str  # database, core, search or prefect
    since: datetime


@dataclass
class Watch:
    """Looks at all parts while it is open."""

    store: Store
    _since: dict[str, datetime] = field(default_factory=dict)  # of the parts that are away
    _seen: set[str] = field(default_factory=set)  # that were there once
    _asked_at: float | None = None  # when the database was asked, while it has not answered
    _began: float = field(default_factory=time.monotonic)
    _ended: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def start(self) -> None:
        for work in (self._look_at_database, self._look_at_processes):
            Thread(target=self._always, args=(work,), name="watch", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def away(self) -> list[Away]:
        """The parts that do not answer now, the longest first."""
        with self._lock:
            found = dict(self._since)
            if self._asked_at is not None and (waited_s := time.monotonic() - self._asked_at) > _SOON_S:
                found.setdefault("database", datetime.fromtimestamp(time.time() - waited_s, UTC))
        return sorted((Away(part, since) for part, since in found.items()), key=lambda one: one.since)

    def since(self, part: str) -> datetime:
        """Since when a part does not answer; now, for one that has just been found so."""
        return next((one.since for one in self.away() if one.part == part), datetime.now(UTC))

    def _always(self, work: Callable[[], None]) -> None:
        while not self._ended.is_set():
            work()
            self._ended.wait(_LOOK_EVERY_S)

    def _look_at_database(self) -> None:
        self._asked_at = time.monotonic()
        try:
            # Past the seats of threads: that all of them are taken is no fault of the database.
            with self.store.errors(), self.store.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            answers = True
        except UrbanReidError as error:
            answers = False
            if not self._ended.is_set() and "database" not in self._since:
                _log.warning("%s", error)
        self._asked_at = None
        self._found("database", answers)

    def _look_at_processes(self) -> None:
        settings = self.store.settings
        try:
            expected = is_held(settings.home / "up.lock")  # else `urban-reid console` serves alone
        except OSError:
            expected = False
        for part, look in (("core", _core_answers), ("search", _search_answers), ("prefect", _prefect_answers)):
            self._found(part, not expected or look(settings))

    def _found(self, part: str, answers: bool) -> None:
        with self._lock:
            if answers:
                self._seen.add(part)
                self._since.pop(part, None)
            elif part in self._seen or time.monotonic() - self._began > _STARTS_WITHIN_S:
                self._since.setdefault(part, datetime.now(UTC))


def _core_answers(settings: Settings) -> bool:
    if settings.core_url is None:
        return connects(core_socket(settings))
    try:
        return CoreClient(settings).get("/jobs", _SOON_S)[0] == 200
    except UrbanReidError:
        return False


def _search_answers(settings: Settings) -> bool:
    return connects(search_socket(settings))


def _prefect_answers(settings: Settings) -> bool:
    url = settings.prefect_url
    if url is None:
        record = read_record(settings.home / "prefect" / "server.json")
        if record is None:
            return False
        url = record.url
    # `up` keeps the socket of a server that was killed, so that a connection says nothing.
    try:
        return httpx.get(f"{url}/health", timeout=_PREFECT_WITHIN_S, trust_env=False).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def connects(path: Path) -> bool:
    """Whether a process listens on the Unix socket."""
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(2.0)
        try:
            tried.connect(str(path))
        except OSError:
            return False
    return True
