"""The environment of processes that call Prefect.

Prefect takes its settings from PREFECT_ variables, a profile, and from .env, prefect.toml and pyproject.toml of the
working directory. Those are the settings of the user's own Prefect, if any: a server and clients of ours that saw them
might store their runs elsewhere. And its clients look at the proxies of the environment for every server, also for one
on this machine.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import FlowError
from schemas.settings import Settings

#: Of the user's variables, those that say how to reach a Prefect server that the user supplies.
_CLIENT_VARIABLES = ("PREFECT_API_", "PREFECT_CLIENT_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def environment(settings: Settings, url: str) -> dict[str, str]:
    """The whole environment of a process of ours that calls or runs flows, with the Prefect server at `url`."""
    return _variables(settings, url) | {
        "PYTHONSAFEPATH": "1",  # a `flows` folder of the user's in the working directory must not shadow ours
        "URBAN_REID_HOME": str(settings.home.absolute()),
    }


@contextlib.contextmanager
def connected(settings: Settings, url: str) -> Iterator[None]:
    """Makes the Prefect server at `url` the one that flows called in this process report to.

    An error in a flow reaches the caller as an exception; Prefect's log goes to its server, not to the terminal.
    Raises FlowError where the user's server can be reached by no proxy that the environment names.
    """
    variables = _variables(settings, url) | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
    if settings.prefect_url:
        _refuse_unusable_proxy()
    with contextlib.ExitStack() as stack:
        with contextlib.chdir(Path(__file__).parent):  # where none of Prefect's files are
            from prefect.settings import PREFECT_API_URL, temporary_settings

            stack.enter_context(temporary_settings({PREFECT_API_URL: url}))
        yield


def _variables(settings: Settings, url: str) -> dict[str, str]:
    """This process's variables, with those by which Prefect finds the server and keeps to this data directory."""
    home = settings.home.absolute() / "prefect"
    kept = _CLIENT_VARIABLES if settings.prefect_url else ()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("PREFECT_") or name.startswith(kept)
    }
    return (inherited if settings.prefect_url else _without_proxies_to_this_machine(inherited)) | {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }


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
