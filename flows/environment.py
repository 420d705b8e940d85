"""The environment of processes that call Prefect, and that they end with the one that started them.

Prefect takes its settings from PREFECT_ variables, a profile, and from .env, prefect.toml and pyproject.toml of the
working directory. Those are the settings of the user's own Prefect, if any: a server and clients of ours that saw them
might store their runs elsewhere. And its clients look at the proxies of the environment for every server, also for one
on this machine.

The server of a data directory asks everyone for its secret, HOME/prefect/secret, which only the owner of the data
directory can read. Processes of ours find it in their environment; it stands in no command line, log or message.
"""

import contextlib
import ctypes
import os
import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from schemas.disk import write_whole
from schemas.errors import FlowError, HomeError
from schemas.settings import Settings

#: Has Prefect's processes write their lines as ours do (`schemas.logs`).
_JSON_LINES = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "schemas.logs.JsonLines",
}
#: Of the user's variables, those that say how to reach a Prefect server that the user supplies.
_CLIENT_VARIABLES = ("PREFECT_API_", "PREFECT_CLIENT_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
#: What Prefect calls an authentication string, user:password. Its pages ask for it as it stands in the file.
_SECRET = re.compile(r"urban-reid:[A-Za-z0-9_-]{43}")


def ends_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What to run in a new process, so that the kernel sends it a signal when the one that started it is killed.

    None where the system cannot.
    """
    return partial(ctypes.CDLL(None).prctl, 1, number) if sys.platform == "linux" else None  # PR_SET_PDEATHSIG


def secret_file(settings: Settings) -> Path:
    """The file that holds the secret of the data directory's Prefect server."""
    return settings.home.absolute() / "prefect" / "secret"


def read_secret(settings: Settings) -> str:
    """The secret by which processes of ours call the data directory's Prefect server. Raises HomeError."""
    path = secret_file(settings)
    try:
        found = path.read_text(errors="replace").strip()
    except OSError as error:
        raise HomeError(f"{path}: the secret of the Prefect server cannot be read: {error.strerror}") from None
    if not _SECRET.fullmatch(found):
        raise HomeError(f"{path}: holds no secret of a Prefect server; its next server writes one anew")
    return found


def make_secret(settings: Settings) -> str:
    """The secret for a server that is about to start: the one of before, or a new one where there is none."""
    path = secret_file(settings)
    try:
        found = read_secret(settings)
    except HomeError:
        found = f"urban-reid:{secrets.token_urlsafe(32)}"
        write_whole(path, f"{found}\n", mode=0o600, sync=True)
    path.chmod(0o600)
    return found


def environment(settings: Settings, url: str | None) -> dict[str, str]:
    """The whole environment of a process of ours that calls or runs flows, with the Prefect server at `url` if any."""
    return _variables(settings, url) | {
        "PYTHONSAFEPATH": "1",  # a `flows` folder of the user's in the working directory must not shadow ours
        "URBAN_REID_HOME": str(settings.home.absolute()),
    }


@contextlib.contextmanager
def connected(settings: Settings, url: str | None) -> Iterator[None]:
    """Makes the Prefect server at `url` the one that flows called in this process report to; with None they do not.

    An error in a flow reaches the caller as an exception; Prefect's log goes to its server, not to the terminal.
    Raises FlowError where the user's server can be reached by no proxy that the environment names.
    """
    variables = _variables(settings, url) | {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        # A server that went away delays the command by seconds, not by minutes.
        "PREFECT_CLIENT_MAX_RETRIES": "1",
        "PREFECT_API_REQUEST_TIMEOUT": "10",
    }
    before = dict(os.environ)
    _replace_environment(variables)
    try:
        if settings.prefect_url and url:
            _refuse_unusable_proxy()
        with contextlib.ExitStack() as stack:
            with contextlib.chdir(Path(__file__).parent):  # where none of Prefect's files are
                from prefect.settings import PREFECT_API_URL, temporary_settings

                stack.enter_context(temporary_settings({PREFECT_API_URL: url}))
            yield
    finally:
        _replace_environment(before)


def _replace_environment(variables: Mapping[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _variables(settings: Settings, url: str | None) -> dict[str, str]:
    """This process's variables, with those by which Prefect finds the server and keeps to this data directory."""
    home = settings.home.absolute() / "prefect"
    kept = _CLIENT_VARIABLES if settings.prefect_url else ()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("PREFECT_") or name.startswith(kept)
    }
    if settings.prefect_url is None:
        inherited = _without_proxies_to_this_machine(inherited)
        if url is not None:
            inherited["PREFECT_API_AUTH_STRING"] = read_secret(settings)
    return (
        inherited
        | ({} if url is None else {"PREFECT_API_URL": url})
        | {
            "PREFECT_HOME": str(home),
            "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
            **(_JSON_LINES if settings.log == "json" else {}),
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        }
    )


def _without_proxies_to_this_machine(variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` with proxies for other machines only, such as the one that published weights come from.

    Prefect's HTTP client fails on a proxy that it does not support, even if no request uses it.
    """
    kept = {name: value for name, value in variables.items() if name.lower() not in _PROXIES or _is_usable(name, value)}
    # As everywhere, the lower-case name comes first.
    named = (variables.get("no_proxy") or variables.get("NO_PROXY") or "").split(",")
    direct = ",".join(dict.fromkeys((*filter(None, map(str.strip, named)), *_THIS_MACHINE)))
    return kept | {"no_proxy": direct, "NO_PROXY": direct}


def _is_usable(name: str, value: str) -> bool:
    if name.lower() == "all_proxy":
        return False  # used by Prefect's HTTP client alone
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False


def _refuse_unusable_proxy() -> None:
    import httpx

    try:
        httpx.Client().close()
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise FlowError(
            f"the Prefect server of URBAN_REID_PREFECT_URL cannot be reached through the proxy that HTTP_PROXY, "
            f"HTTPS_PROXY or ALL_PROXY names: {error}"
        ) from None
