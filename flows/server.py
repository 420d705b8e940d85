"""One Prefect server for a data directory: the one that runs is used, else one is started; it ends when unused.

Three lock files in HOME/prefect; the kernel releases a lock when its holder ends, however it ends:
    starting.lock  held while a command looks for the server and starts one
    server.lock    held by the server process as long as it lives
    holders.lock   shared by all who use the server; the server ends when it can take this lock alone

The listening socket is made here and passed to the server, so that no other program can take the port in between and
the address is known before the server is ready: a caller imports Prefect while the server starts.

This module is also the server process: `python -P -m flows.server SOCKET_FD`, in the folder HOME/prefect.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from flows.environment import environment
from schemas.disk import keep_private, lock, locked, open_lock, try_lock, unlock, write_whole
from schemas.errors import FlowError, HomeError, UsageError
from schemas.settings import Settings

#: The first start on a data directory runs all of Prefect's migrations: 6 s on two cores.
_START_DEADLINE_S = 120.0
#: The last run's events are still on their way into Prefect's tables when its command ends; and the next command may
#: come soon.
_POLL_S, _LINGER_POLLS = 0.5, 20
_END_WITHIN_S = 10.0
#: A server writes its record when it starts, and again where it was lost.
_RECORD_WITHIN_S = 20.0


class PrefectServer:
    """A hold on the Prefect server of `settings`' data directory, as a context manager.

    Entering returns at once, with `url` set; `wait` returns when the server answers. With `settings.prefect_url`
    the user's server is used and none is started.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home.absolute() / "prefect"
        self._holds = contextlib.ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        if self._settings.prefect_url:
            self.url = _checked_url(self._settings.prefect_url)
            return self
        with self._holds as holds:
            try:
                self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        self._holds.close()

    @property
    def ui_url(self) -> str:
        """The address for a person's browser."""
        return self.url.removesuffix("/api")

    def stop(self) -> None:
        """Releases the hold, and ends the server at once if nobody else holds it."""
        self._holds.close()
        if self._settings.prefect_url:
            return
        with locked(self._home / "starting.lock"), open_lock(self._home / "holders.lock") as holders:
            deadline = time.monotonic() + _END_WITHIN_S
            # The server itself takes this lock for a moment at a time, to see whether it is held.
            while not (alone := try_lock(holders)) and time.monotonic() < deadline - _END_WITHIN_S + 2 * _POLL_S:
                time.sleep(_POLL_S / 10)
            if not alone or (record := self._record()) is None:
                return
            _, pid = record
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                while self._runs() and time.monotonic() < deadline:
                    time.sleep(_POLL_S / 10)
                if self._runs():
                    os.kill(pid, signal.SIGKILL)
            with locked(self._home / "server.lock"):  # waits for its end
                pass

    def alive(self) -> bool:
        """Whether the server's process lives; a user-supplied server is its owner's concern."""
        return self._settings.prefect_url is not None or self._find() == self.url

    def wait(self) -> str:
        """Returns the API's URL once the server answers. Raises FlowError."""
        deadline = time.monotonic() + _START_DEADLINE_S
        while (failure := self._unhealthy(deadline - time.monotonic())) is not None:
            embedded = self._settings.prefect_url is None
            if time.monotonic() > deadline or not embedded or not self.alive():
                hint = f"its log is {self._home / 'server.log'}" if embedded else "URBAN_REID_PREFECT_URL names it"
                raise FlowError(f"the Prefect server at {self.url} does not answer ({failure}); {hint}")
            time.sleep(0.1)
        return self.url

    def _unhealthy(self, timeout_s: float) -> str | None:
        """Why the server is not healthy, or None. An early call waits in the socket's queue."""
        proxies: dict[str, str] | None = None if self._settings.prefect_url else {}  # None: those of the environment
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
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
        return record and record[0]

    def _record(self) -> tuple[str, int] | None:
        """The URL and the process id of the server that runs, if one does. Raises FlowError if it does not say."""
        path = self._home / "server.json"
        deadline = time.monotonic() + _RECORD_WITHIN_S
        while self._runs():
            if (record := _read_record(path)) is not None:
                return record
            if time.monotonic() > deadline:
                raise FlowError(f"{path} is missing or damaged, though a Prefect server runs: end it, and try again")
            time.sleep(_POLL_S / 10)
        return None

    def _start(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as listening, open_lock(self._home / "server.lock") as held:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            lock(held)  # waits for processes that are just looking whether a server runs
            variables = environment(self._settings, url) | {
                # Relative to the process's folder: a path in a URL would have to be quoted.
                "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///prefect.db",
                "PREFECT_UI_STATIC_DIRECTORY": "ui",
                "PREFECT_UI_API_URL": url,
                "PREFECT__SERVER_FINAL": "1",
                # Written one by one, a run's events keep SQLite busy, and a caller that meets its lock waits 2 s.
                "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "500",
                "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
                "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
            }
            (self._home / "server.json").unlink(missing_ok=True)  # of an earlier server; each writes its own
            with (self._home / "server.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "flows.server", str(listening.fileno())],
                    env=variables,
                    cwd=self._home,
                    pass_fds=(listening.fileno(), held.fileno()),  # the lock is held until the server's end
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the command, not for its server
                )
        process.returncode = 0  # not ours to wait for: it may live longer than this process
        return url


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


def _read_record(path: Path) -> tuple[str, int] | None:
    """The URL and the process id that server.json holds; None where it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
        return str(found["url"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _keep_record(path: Path, url: str, pid: int) -> None:
    """Writes server.json, by which others find this server, unless it is there."""
    if _read_record(path) != (url, pid):
        write_whole(path, json.dumps({"url": url, "pid": pid}))


def main() -> None:
    """The server process: serves on the socket that it was given until nobody holds it."""
    keep_private()
    record = (Path("server.json"), os.environ["PREFECT_API_URL"], os.getpid())
    _keep_record(*record)

    import uvicorn

    listening = socket.socket(fileno=int(sys.argv[1]))
    server = uvicorn.Server(
        uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    )

    def watch() -> None:
        with open_lock(Path("holders.lock")) as holders:
            unheld_polls = 0
            while unheld_polls < _LINGER_POLLS:
                time.sleep(_POLL_S)
                with contextlib.suppress(OSError):  # such as a full disk; tried again in a moment
                    _keep_record(*record)
                unheld_polls = unheld_polls + 1 if try_lock(holders) else 0
                if unheld_polls < _LINGER_POLLS:
                    unlock(holders)
            server.should_exit = True  # not sooner than the migrations are through
            threading.Event().wait()  # keeps the lock to the end, so that a newcomer starts a server of its own

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
