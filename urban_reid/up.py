"""urban-reid up: database, core process, Prefect's server and runner, resolver, search process, console, cameras.

It runs until Ctrl-C.

Only one `up` runs on a data directory: it holds HOME/up.lock. It ends what it started, by process id; a child that
dies is started again, each time after a longer pause.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from flows.environment import ends_with_parent, environment
from flows.server import PrefectServer
from schemas.disk import full_disk, is_held, make_home, open_lock, try_lock
from schemas.errors import FlowError, HomeError, StoreError, UrbanReidError, UsageError
from schemas.settings import Settings
from urban_reid.console.listening import Address, choose_port, record_file
from urban_reid.console.listening import served as served_console
from urban_reid.service_manager import tell_manager

if TYPE_CHECKING:
    from pipeline.store import Store

_LOOK_EVERY_S = 0.5
_LOOK_AT_DATABASE_EVERY_S = 2.0
_READY_WITHIN_S = 180.0
#: Pauses before a child that died is started again; after a life longer than the last of them, the first one counts.
_PAUSES_S = (1.0, 2.0, 5.0, 10.0)
#: A child that was asked to end gets this long; the runner first cancels its flow runs.
_END_WITHIN_S = 20.0


def _pause_s(deaths: int) -> float:
    """How long ago a child must have been started before it is started again, seconds."""
    return _PAUSES_S[min(deaths, len(_PAUSES_S) - 1)]


@dataclass
class Child:
    """One of our processes, in a process group of its own, so that the processes that it starts end with it."""

    name: str
    module: str
    environment: Mapping[str, str]
    log: Path
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    started_at: float = field(default=0.0)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module, *self.arguments],
                env=self.environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=ends_with_parent(signal.SIGTERM),
            )
        self.started_at = time.monotonic()

    def look(self, say: Callable[[str], None]) -> None:
        """Starts the child again if it died and its pause is over."""
        if self.process is None or self.process.poll() is None:
            return
        lived_s = time.monotonic() - self.started_at
        if lived_s < _pause_s(self.deaths):
            return
        self.deaths = 1 if lived_s > _PAUSES_S[-1] else self.deaths + 1
        say(f"{self.name} ended with status {self.process.returncode} and is started again; see {self.log}")
        self._end_group()
        self.start()

    def end(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_WITHIN_S)
        self._end_group()
        self.process.wait()

    def _end_group(self) -> None:
        """Kills the rest of the group, such as the flow runs of a runner that was killed."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Database:
    """The database, which any program of ours starts again at its next connection; here each few seconds."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._looked_at = time.monotonic()
        self._began = self._start_time()

    def look(self, say: Callable[[str], None]) -> None:
        if time.monotonic() - self._looked_at < _LOOK_AT_DATABASE_EVERY_S:
            return
        self._looked_at = time.monotonic()
        try:
            began = self._start_time()
        except StoreError as error:
            if self._began is not None:
                say(f"the database does not answer: {full_disk(self._store.settings.home) or error}")
            began = None
        else:
            if began != self._began:
                say("the database ended and was started again")
        self._began = began

    def _start_time(self) -> object:
        with self._store.begin() as connection:
            return connection.scalar(text("SELECT pg_postmaster_start_time()"))


class Cameras:
    """The cameras' process, which is started when the city has a feed."""

    def __init__(self, store: "Store", child: Child) -> None:
        self._store, self._child = store, child
        self._looked_at = -_LOOK_AT_DATABASE_EVERY_S

    def look(self, say: Callable[[str], None]) -> None:
        if self._child.process is not None:
            self._child.look(say)
            return
        if time.monotonic() - self._looked_at < _LOOK_AT_DATABASE_EVERY_S:
            return
        self._looked_at = time.monotonic()
        with suppress(StoreError), self._store.begin() as connection:  # `Database` says that it does not answer
            if connection.scalar(text("SELECT EXISTS (SELECT FROM camera_feed)")):
                self._child.start()


class Served:
    """The Prefect server, started again like a child if it dies."""

    def __init__(self, server: PrefectServer, log: Path) -> None:
        self.server = server
        self._log = log
        self._deaths = 0
        self._started_at = time.monotonic()

    def look(self, say: Callable[[str], None]) -> None:
        if self.server.alive():
            return
        lived_s = time.monotonic() - self._started_at
        if lived_s < _pause_s(self._deaths):
            return
        self._deaths = 1 if lived_s > _PAUSES_S[-1] else self._deaths + 1
        say(f"the Prefect server ended and is started again; see {self._log}")
        self._started_at = time.monotonic()
        try:
            self.server.restart()
        except UrbanReidError as error:  # tried again after the next pause; the city's work goes on without it
            say(f"the Prefect server does not start: {full_disk(self._log.parent) or error}")


def run(settings: Settings, say: Callable[[str], None], on_ready: Callable[[str, Address], None]) -> None:
    """Keeps everything up until SIGINT, SIGTERM or SIGHUP. Calls `on_ready` with the addresses of Prefect's pages and
    of the console.

    Raises HomeError when another `up` runs on this data directory, or its path is too long for the core's socket;
    FlowError when the Prefect server or its runner does not start; UsageError for a port that cannot be used.
    """
    from pipeline.cameras.messages import untold_outages
    from pipeline.metrics.server import serving_metrics
    from pipeline.standing.messages import untold_hits
    from pipeline.store import Store
    from pipeline.webhook.telling import telling
    from reid_core.serving.unix_socket import usable
    from reid_core.serving.wire import socket_path

    of_workers = settings.flows == "workers"
    if of_workers:
        check_shared(settings, "URBAN_REID_FLOWS=workers")
    settings = settings.model_copy(update={"home": settings.home.absolute()})
    home, prefect = settings.home, settings.home / "prefect"
    core_socket = socket_path(settings)
    usable(settings.cameras_socket)  # the longest of the three
    ended = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(alone(settings))
        stack.enter_context(on_signals(ended.set))
        store = stack.enter_context(Store.open(settings, "urban-reid up"))
        stack.enter_context(serving_metrics(store))
        stack.enter_context(telling(store, (untold_hits, untold_outages), say, lambda: datetime.now(UTC)))
        server = stack.enter_context(PrefectServer(settings, supervising=True))
        stack.callback(server.stop)
        prefect.mkdir(mode=0o700, exist_ok=True)  # not made yet where the user supplies the server
        variables = environment(settings, server.url)
        core = Child("the core process", "reid_core.core_process.service", variables, home / "core.log")
        runner = Child("the runner of flows", "flows.deployments", variables, prefect / "runner.log")
        resolver = Child("the resolver", "urban_reid.resolver", variables, home / "resolver.log")
        searches = Child("the search process", "pipeline.search.service", variables, home / "search.log")
        serving = prefect / "serving"  # made by the runner when it serves all flows
        serving.unlink(missing_ok=True)
        stack.callback(serving.unlink, missing_ok=True)
        of_console = variables | {"URBAN_REID_CONSOLE_PORT": str(choose_port(settings.console_port))}
        console = Child("the console", "urban_reid.console.service", of_console, home / "console.log")
        record_file(settings).unlink(missing_ok=True)
        stack.callback(record_file(settings).unlink, missing_ok=True)
        cameras = Child("the cameras' process", "pipeline.cameras.service", variables, home / "cameras.log")
        for child in (core, runner, resolver, searches, console, cameras):
            stack.callback(child.end)
        has_core = settings.core_url is None  # else another host computes
        for child in (*([core] if has_core else []), *([] if of_workers else [runner]), console):
            child.start()
        server.wait()
        served = Served(server, prefect / "server.log")
        database, feeds = Database(store), Cameras(store, cameras)
        give_up_at = time.monotonic() + _READY_WITHIN_S
        ready = False
        while not ended.wait(_LOOK_EVERY_S):
            for part in (database, served, core, runner, resolver, searches, console):
                part.look(say)
            if ready:
                feeds.look(say)  # not before: without the core process each camera would load the detector itself
            tell_manager("WATCHDOG=1")
            if not of_workers and runner.environment["PREFECT_API_URL"] != server.url:  # another program took the port
                runner.end()
                runner.environment = environment(settings, server.url)
                runner.start()
            served_flows, core_up = of_workers or serving.exists(), not has_core or listens(core_socket)
            if not ready and served_flows and core_up and (pages := served_console(settings)):
                ready = True
                for child in (resolver, searches):  # not before: without the core process they would load the model
                    child.start()
                on_ready(server.ui_url, pages)
                tell_manager(f"READY=1\nSTATUS=Prefect's pages: {server.ui_url}")
            if not ready and time.monotonic() > give_up_at:
                why = full_disk(settings.home) or f"see {core.log}, {runner.log} and {console.log}"
                raise FlowError(f"not ready within {_READY_WITHIN_S:.0f} s: {why}")
        tell_manager("STOPPING=1")
        say("ending")


def check_shared(settings: Settings, what: str) -> None:
    """Raises UsageError where the settings do not name what hosts share: a database and a Prefect server."""
    named = {"URBAN_REID_DATABASE_URL": settings.database_url, "URBAN_REID_PREFECT_URL": settings.prefect_url}
    if missing := [name for name, value in named.items() if value is None]:
        raise UsageError(f"{what} needs {' and '.join(missing)}: hosts share a database and a Prefect server")


def is_up(settings: Settings) -> bool:
    """Whether `urban-reid up` runs on this data directory."""
    try:
        return is_held(settings.home / "up.lock")
    except OSError as error:
        raise HomeError(f"{settings.home / 'up.lock'}: {error.strerror}") from None


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    try:
        make_home(settings.home)
        file = open_lock(settings.home / "up.lock")
    except OSError as error:
        raise HomeError(
            f"the data directory {settings.home} cannot be written: {error.strerror}; "
            "set URBAN_REID_HOME to a folder that you may write"
        ) from None
    with file:
        if not try_lock(file):
            raise HomeError(
                f"`urban-reid up` or a worker runs already on {settings.home}; end it, or set URBAN_REID_HOME to "
                "another folder"
            )
        yield


@contextmanager
def on_signals(call: Callable[[], None]) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: call()) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
