"""One Prefect server for a data directory: used where one runs, else started; it ends itself when nobody holds it.

Three locks (flock, so that a killed process lets go of what it held) in HOME/prefect:
    starting    held while a command looks for the server and starts one
    server      held by the server process as long as it lives
    holders     shared by all who use the server; the server that can take it alone ends

The listening socket is made here and handed to the server, so that no other program can take the port in between and
the address is known before the server is ready; a caller imports Prefect while the server still starts.

This module is also the server process: `python -P -m flows.server SOCKET_FD HOLDERS`.
"""

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from schemas.errors import FlowError, HomeError
from schemas.settings import Settings

#: The first start on a data directory runs all of Prefect's migrations: 6 s on two cores.
_START_DEADLINE_S = 120.0
#: The last run's events are still on their way into Prefect's tables when its command ends; and the next command may
#: come soon.
_POLL_S, _LINGER_POLLS = 0.5, 20
_END_WITHIN_S = 10.0


def prefect_variables(settings: Settings, url: str) -> dict[str, str]:
    """The variables by which Prefect finds the server at `url`, and keeps to this data directory."""
    home = settings.home.absolute() / "prefect"
    own_server = {} if settings.prefect_url else {"PREFECT_API_KEY": "", "PREFECT_API_AUTH_STRING": ""}
    return own_server | {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"))),
    }


def environment(settings: Settings, url: str) -> dict[str, str]:
    """The whole environment of a process of ours that calls or runs flows."""
    return (
        os.environ
        | prefect_variables(settings, url)
        | {
            "PYTHONSAFEPATH": "1",  # a user's own `flows` folder in the working directory must not shadow ours
            "URBAN_REID_HOME": str(settings.home.absolute()),
        }
    )


class PrefectServer:
    """A hold on the Prefect server of `settings`' data directory, as a context manager.

    Entering returns at once, with `url` set; `wait` returns when the server answers. With `settings.prefect_url`
    that server is used and none is started.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home.absolute() / "prefect"
        self._holds = contextlib.ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        if self._settings.prefect_url:
            self.url = self._settings.prefect_url.rstrip("/")
            return self
        with self._holds as holds:
            try:
                self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _locked(self._home / "starting.lock", fcntl.LOCK_EX):
                    # Waits here only for a server that is about to end.
                    holds.enter_context(_locked(self._home / "holders.lock", fcntl.LOCK_SH))
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
        """Gives the hold back, and ends the server at once if nobody else holds it."""
        self._holds.close()
        if self._settings.prefect_url:
            return
        with _locked(self._home / "starting.lock", fcntl.LOCK_EX), _open_lock(self._home / "holders.lock") as holders:
            deadline = time.monotonic() + _END_WITHIN_S
            # The server itself takes this lock for a moment at a time, to see whether it is held.
            while not (alone := _try_lock(holders)) and time.monotonic() < deadline - _END_WITHIN_S + 2 * _POLL_S:
                time.sleep(_POLL_S / 10)
            if not alone or self._find() is None:
                return
            pid = int(json.loads((self._home / "server.json").read_text())["pid"])
            os.kill(pid, signal.SIGTERM)
            while self._find() is not None and time.monotonic() < deadline:
                time.sleep(_POLL_S / 10)
            if self._find() is not None:
                os.kill(pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether the server's process lives; an own server is its keeper's."""
        return self._settings.prefect_url is not None or self._find() == self.url

    def wait(self) -> str:
        """The API's URL, once it answers. Raises FlowError."""
        deadline = time.monotonic() + _START_DEADLINE_S
        while (failure := _unhealthy(self.url, deadline - time.monotonic())) is not None:
            own = self._settings.prefect_url is None
            if time.monotonic() > deadline or not own or not self.alive():
                hint = f"its log is {self._home / 'server.log'}" if own else "URBAN_REID_PREFECT_URL names it"
                raise FlowError(f"the Prefect server at {self.url} does not answer ({failure}); {hint}")
            time.sleep(0.1)
        return self.url

    def _find(self) -> str | None:
        """The URL of the server that runs, if one does."""
        with _open_lock(self._home / "server.lock") as lock:
            if _try_lock(lock):
                return None
        return str(json.loads((self._home / "server.json").read_text())["url"])

    def _start(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as listening, _open_lock(self._home / "server.lock") as lock:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            if not _try_lock(lock):
                raise FlowError(f"{self._home / 'server.lock'} is held by another process; try again")
            variables = environment(self._settings, url) | {
                "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self._home / 'prefect.db'}",
                "PREFECT_UI_STATIC_DIRECTORY": str(self._home / "ui"),
                "PREFECT_UI_API_URL": url,
                "PREFECT__SERVER_FINAL": "1",
                # Written one by one, a run's events keep SQLite busy, and a caller that meets its lock waits 2 s.
                "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "500",
                "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
                "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
            }
            with (self._home / "server.log").open("ab") as log:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "flows.server",
                        str(listening.fileno()),
                        str(self._home / "holders.lock"),
                    ],
                    env=variables,
                    cwd=self._home,  # Prefect reads .env and pyproject.toml of the working directory
                    pass_fds=(listening.fileno(), lock.fileno()),  # the lock is held until the server's end
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the command, not for its server
                )
        process.returncode = 0  # not ours to wait for: it may live longer than this process
        record = self._home / "server.json.new"
        record.write_text(json.dumps({"url": url, "pid": process.pid}))
        record.replace(self._home / "server.json")
        return url


@contextlib.contextmanager
def connected(settings: Settings, server: PrefectServer) -> Iterator[None]:
    """Makes `server` the one that flows called in this process report to. `server.wait` before the first call.

    What goes wrong reaches the caller as an exception; Prefect's log goes to its server, not to the terminal.
    """
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    os.environ.update(prefect_variables(settings, server.url) | quiet)  # before Prefect is imported, which reads them
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url}):
        yield


def _unhealthy(url: str, timeout_s: float) -> str | None:
    """Why the server at `url` is not healthy, or None. An early call waits in the socket's queue."""
    parts = urlsplit(url)
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = make(parts.hostname or "", parts.port, timeout=max(timeout_s, 0.1))
    try:
        connection.request("GET", f"{parts.path}/health")
        status = connection.getresponse().status
        return None if status == 200 else f"status {status}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def _open_lock(path: Path) -> IO[bytes]:
    return path.open("ab")


def _try_lock(lock: IO[Any]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with _open_lock(path) as lock:
        fcntl.flock(lock, kind)
        yield


def main() -> None:
    """The server process: serves on the socket that it was handed until nobody holds it."""
    import uvicorn

    listening = socket.socket(fileno=int(sys.argv[1]))
    server = uvicorn.Server(
        uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    )

    def end_when_unheld() -> None:
        with _open_lock(Path(sys.argv[2])) as holders:
            unheld_polls = 0
            while unheld_polls < _LINGER_POLLS:
                time.sleep(_POLL_S)
                unheld_polls = unheld_polls + 1 if _try_lock(holders) else 0
                if unheld_polls < _LINGER_POLLS:
                    fcntl.flock(holders, fcntl.LOCK_UN)
            server.should_exit = True  # not sooner than the migrations are through
            threading.Event().wait()  # keeps the lock to the end, so that a newcomer starts a server of its own

    threading.Thread(target=end_when_unheld, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
