"""One Prefect server for a data directory: the one that runs is used, else one is started; it ends when unused.

Four lock files in HOME/prefect; the kernel releases a lock when its holder ends, however it ends:
    starting.lock    held while a command looks for the server and starts one
    server.lock      held by the server process as long as it lives
    holders.lock     shared by all who use the server; the server ends when it can take this lock alone
    supervised.lock  held by `urban-reid up`, which starts the server again if it dies

The listening socket is made here and passed to the server, so that no other program can take the port in between and
the address is known before the server is ready: a caller imports Prefect while the server starts. `up` keeps the
socket open: callers that come while the server is started again wait in its queue.
"""

import base64
import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from flows.environment import environment, make_secret
from flows.server_process import LINGER_POLLS, POLL_S, Record, read_record
from schemas.disk import full_disk, lock, locked, open_lock, try_lock, write_whole
from schemas.errors import FlowError, HomeError, UsageError
from schemas.settings import Settings

#: The first start on a data directory runs all of Prefect's migrations: 6 s on two cores.
_START_DEADLINE_S = 120.0
#: A server that runs and gives no answer within this does without the run's reports.
_ANSWER_DEADLINE_S = 10.0
#: One request waits this long; then the server is looked at, and it is asked again.
_ASK_S = 5.0
_END_WITHIN_S = 10.0
#: A server writes its record when it starts, and again where it was lost.
_RECORD_WITHIN_S = 20.0
_PORT_TRIES = 10
#: `up` starts a dead server again within this.
_REVIVED_WITHIN_S = 30.0
_DAY_S = 24 * 3600


class PrefectServer:
    """A hold on the Prefect server of `settings`' data directory, as a context manager.

    Entering returns at once, with `url` set; `wait` returns when the server answers. With `settings.prefect_url`
    the user's server is used and none is started. `supervising`: this process starts the server again if it dies, by
    `restart`.
    """

    def __init__(self, settings: Settings, *, supervising: bool = False) -> None:
        self._settings = settings
        self._home = settings.home.absolute() / "prefect"
        self._holds = contextlib.ExitStack()
        self._supervising = supervising
        self._listening: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        if self._settings.prefect_url:
            self.url = _checked_url(self._settings.prefect_url)
            return self
        with self._holds as holds:
            try:
                self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self._supervising:
                    holds.enter_context(locked(self._home / "supervised.lock"))
                    self._outlast_other_port()
                else:
                    self._outlast_gap()
                with locked(self._home / "starting.lock"):
                    # Waits here only for a server that is about to end.
                    holds.enter_context(locked(self._home / "holders.lock", shared=True))
                    self.url = self._find() or self._start()
            except OSError as error:
                raise HomeError(
                    f"{self._home}: cannot be used as Prefect's folder: {error.strerror or error}"
                ) from None
            self._holds = holds.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._listening is not None:
            self._listening.close()
        self._holds.close()

    @property
    def ui_url(self) -> str:
        """The address for a person's browser."""
        return self.url.removesuffix("/api")

    def stop(self) -> None:
        """Releases the hold, and ends the server at once if nobody else holds it."""
        self._release()
        if self._settings.prefect_url:
            return
        with locked(self._home / "starting.lock"), open_lock(self._home / "holders.lock") as holders:
            deadline = time.monotonic() + _END_WITHIN_S
            # The server itself takes this lock for a moment at a time, to see whether it is held.
            while not (alone := try_lock(holders)) and time.monotonic() < deadline - _END_WITHIN_S + 2 * POLL_S:
                time.sleep(POLL_S / 10)
            if not alone or (record := self._record()) is None:
                return
            pid = record.pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                while self._runs() and time.monotonic() < deadline:
                    time.sleep(POLL_S / 10)
                if self._runs():
                    os.kill(pid, signal.SIGKILL)
            with locked(self._home / "server.lock"):  # waits for its end
                pass

    def restart(self) -> None:
        """Starts the server again after its death, on the same port if that is free. Raises FlowError and HomeError."""
        if self._process is not None:
            self._process.wait()
            self._process = None
        try:
            with locked(self._home / "starting.lock"):
                self.url = self._find() or self._start()
        except OSError as error:
            raise HomeError(f"{self._home}: the Prefect server does not start: {error.strerror or error}") from None

    def alive(self) -> bool:
        """Whether the server's process lives; a user-supplied server is its owner's concern."""
        return self._settings.prefect_url is not None or self._find() == self.url

    def wait(self) -> str:
        """Returns the API's URL once the server answers. Raises FlowError."""
        embedded = self._settings.prefect_url is None
        deadline = time.monotonic() + self._patience_s()
        while (failure := self._unhealthy(min(_ASK_S, deadline - time.monotonic()))) is not None:
            if time.monotonic() > deadline or not embedded or not self.alive():
                if embedded and (full := full_disk(self._home)):
                    raise FlowError(f"the Prefect server does not answer, because {full}")
                hint = f"its log is {self._home / 'server.log'}" if embedded else "URBAN_REID_PREFECT_URL names it"
                raise FlowError(f"the Prefect server at {self.url} does not answer ({failure}); {hint}")
            time.sleep(0.1)
        return self.url

    def _patience_s(self) -> float:
        """How long an answer is waited for: long while the server starts, else briefly."""
        starts = self._settings.prefect_url is None and ((record := self._record()) is None or not record.ready)
        return _START_DEADLINE_S if starts else _ANSWER_DEADLINE_S

    def _outlast_other_port(self) -> None:
        """Waits for the end of a server that nobody uses, and that serves another port than the one asked for."""
        asked = self._settings.prefect_port
        deadline = time.monotonic() + (LINGER_POLLS + 2) * POLL_S
        while asked is not None and (url := self._find()) is not None and urlsplit(url).port != asked:
            if time.monotonic() > deadline:
                raise FlowError(f"a Prefect server runs already at {url}: end the commands that use it, and try again")
            time.sleep(POLL_S)

    def _outlast_gap(self) -> None:
        """Waits while `up` starts a dead server again."""
        deadline = time.monotonic() + _REVIVED_WITHIN_S
        while self._is_supervised() and self._find() is None and time.monotonic() < deadline:
            time.sleep(POLL_S / 10)

    def _is_supervised(self) -> bool:
        with open_lock(self._home / "supervised.lock") as file:
            return not try_lock(file)

    def _unhealthy(self, timeout_s: float) -> str | None:
        """Why the server is not healthy, or None. An early call waits in the socket's queue."""
        proxies: dict[str, str] | None = None if self._settings.prefect_url else {}  # None: those of the environment
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        if self._settings.prefect_url and (given := os.environ.get("PREFECT_API_AUTH_STRING")):
            opener.addheaders = [("Authorization", f"Basic {base64.b64encode(given.encode()).decode()}")]
        try:
            with opener.open(f"{self.url}/health", timeout=max(timeout_s, 0.1)) as answer:
                return None if answer.status == 200 else f"status {answer.status}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return str(error) or type(error).__name__

    def _runs(self) -> bool:
        with open_lock(self._home / "server.lock") as file:
            return not try_lock(file)

    def _find(self) -> str | None:
        """The URL of the server that runs, if one does."""
        record = self._record()
        return record and record.url

    def _record(self) -> Record | None:
        """The record of the server that runs, if one does. Raises FlowError if it does not say."""
        path = self._home / "server.json"
        deadline = time.monotonic() + _RECORD_WITHIN_S
        while self._runs():
            if (record := read_record(path)) is not None:
                return record
            if time.monotonic() > deadline:
                raise FlowError(f"{path} is missing or damaged, though a Prefect server runs: end it, and try again")
            time.sleep(POLL_S / 10)
        return None

    def _start(self) -> str:
        listening = self._listening or self._listen()
        with contextlib.ExitStack() as ends, open_lock(self._home / "server.lock") as held:
            if self._supervising:
                self._listening = listening
            else:
                ends.enter_context(listening)
            port = listening.getsockname()[1]
            url = f"http://127.0.0.1:{port}/api"
            write_whole(self._home / "port", f"{port}\n", mode=0o600)
            lock(held)  # waits for processes that are just looking whether a server runs
            secret = make_secret(self._settings)
            variables = environment(self._settings, url) | _server_variables(self._settings, url, secret)
            (self._home / "server.json").unlink(missing_ok=True)  # of an earlier server; each writes its own
            with (self._home / "server.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "flows.server_process", str(listening.fileno())],
                    env=variables,
                    cwd=self._home,
                    pass_fds=(listening.fileno(), held.fileno()),  # the lock is held until the server's end
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the command, not for its server
                )
        if self._supervising:
            self._process = process
        else:
            process.returncode = 0  # not ours to wait for: it may live longer than this process
        return url

    def _listen(self) -> socket.socket:
        """A socket on the port that the user asks for, else on the one of before if that is free, else on any."""
        if (asked := self._settings.prefect_port) is not None:
            try:
                return socket.create_server(("127.0.0.1", asked))
            except OSError as error:
                raise UsageError(
                    f"port {asked} cannot be used for Prefect's pages: {error.strerror}; name another one with --port "
                    "or URBAN_REID_PREFECT_PORT"
                ) from None
        for _ in range(_PORT_TRIES):
            with contextlib.suppress(OSError, ValueError, OverflowError):
                return socket.create_server(("127.0.0.1", int((self._home / "port").read_bytes())))
            time.sleep(POLL_S / 10)  # the kernel may take a dead server's lock away before its socket
        return socket.create_server(("127.0.0.1", 0))


def _server_variables(settings: Settings, url: str, secret: str) -> dict[str, str]:
    """What only the server's environment holds."""
    kept_s = settings.prefect_days * _DAY_S
    return {
        # Relative to the process's folder: a path in a URL would have to be quoted.
        "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///prefect.db",
        "PREFECT_UI_STATIC_DIRECTORY": "ui",
        "PREFECT_UI_API_URL": url,
        "PREFECT__SERVER_FINAL": "1",
        # Only who knows the secret is served, and no page of another site.
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url.removesuffix("/api"),
        # Automations would call addresses and run blocks that rows of the API name.
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        # Task runs, written one by one, keep SQLite busy, and a caller that meets its lock waits 2 s.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "500",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # Events only draw dots on its pages, and are most of what a run writes; see docs/decisions/prefect-events.md.
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(kept_s),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",
    }


def _checked_url(url: str) -> str:
    """The user's API URL without a slash at its end. Raises UsageError."""
    try:
        parts = urlsplit(url.encode().decode())  # raises for half a character
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:  # an address or port that cannot be
        valid = False
    if not valid:
        raise UsageError(
            f"URBAN_REID_PREFECT_URL: {url[:200]!r} is not an API address such as http://127.0.0.1:4200/api"
        )
    return url.rstrip("/")
