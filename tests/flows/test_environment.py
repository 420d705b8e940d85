"""What processes of ours see of the settings of the user's own Prefect, and of the proxies of the environment."""

import os
from itertools import product
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx
import prefect.settings
import pytest
from prefect.settings.legacy import _get_settings_fields

from flows.environment import connected, environment, make_secret
from schemas.errors import FlowError
from schemas.settings import Settings

URL = "http://127.0.0.1:1/api"
#: Every variable that Prefect reads, and one that it may read one day.
VARIABLES = sorted({name for name in _get_settings_fields(prefect.settings.Settings) if name.startswith("PREFECT")})
OURS = {
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_URL",
    "PREFECT_HOME",
    "PREFECT_PROFILES_PATH",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE",
    "PREFECT_SERVER_ANALYTICS_ENABLED",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT",
}
VALUES = ("http://127.0.0.1:9", "socks5://127.0.0.1:9", "ftp:]x")
PROXIES = [spell(name) for name in ("http_proxy", "https_proxy", "all_proxy") for spell in (str.lower, str.upper)]


@pytest.fixture
def home(home: Path) -> Path:
    """A data directory whose Prefect server was started once."""
    (home / "prefect").mkdir(mode=0o700)
    make_secret(Settings(home=home))
    return home


def test_children_neither_report_home_nor_look_into_the_working_directory(home: Path) -> None:
    variables = environment(Settings(home=home), URL)
    assert variables["DO_NOT_TRACK"] == "1"
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["PREFECT_HOME"] == str(home / "prefect")


@pytest.mark.parametrize("lower", [False, True])
def test_none_of_the_settings_of_the_users_own_prefect(
    home: Path, monkeypatch: pytest.MonkeyPatch, lower: bool
) -> None:
    assert len(VARIABLES) > 300
    for name in [*VARIABLES, "PREFECT_NEW_ONE", "PREFECT__SERVER_FINAL"]:
        monkeypatch.setenv(name.lower() if lower else name, "theirs")
    variables = environment(Settings(home=home), URL)
    found = {name: value for name, value in variables.items() if name.upper().startswith("PREFECT_")}
    assert set(found) == OURS and "theirs" not in found.values()


def test_a_user_supplied_server_is_reached_with_the_users_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)  # those that an earlier test in this process was connected with
    monkeypatch.setenv("PREFECT_API_URL", "https://other.example/api")
    theirs = {"PREFECT_API_KEY": "k", "PREFECT_API_AUTH_STRING": "a:b", "PREFECT_CLIENT_CUSTOM_HEADERS": '{"x": "y"}'}
    proxies = {"https_proxy": "http://proxy.example:3128", "no_proxy": "example.org"}
    for name, value in {**theirs, **proxies, "PREFECT_SERVER_DATABASE_NAME": "x"}.items():
        monkeypatch.setenv(name, value)
    variables = environment(Settings(home=home, prefect_url="https://prefect.example/api"), URL)
    assert {name for name in variables if name.startswith("PREFECT_")} == OURS | set(theirs)
    assert variables.items() >= (theirs | proxies | {"PREFECT_API_URL": URL}).items()


@pytest.mark.parametrize(("name", "proxy"), [*product(PROXIES, VALUES)])
@pytest.mark.parametrize("direct", ["no_proxy", "NO_PROXY"])
def test_no_proxy_stands_between_us_and_our_server(
    home: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str, direct: str
) -> None:
    for variable in (*PROXIES, "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, proxy)
    monkeypatch.setenv(direct, "example.org, 10.0.0.1")
    variables = environment(Settings(home=home), URL)
    for variable in (*PROXIES, "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        if variable in variables:
            monkeypatch.setenv(variable, variables[variable])
    assert httpx.get(f"{prefect_url}/health", timeout=60).status_code == 200
    for host in ("127.0.0.1:80", "localhost", "example.org", "10.0.0.1"):
        assert proxy_bypass(host)  # what Prefect's websockets ask
    if proxy.startswith("http:") and "all" not in name.lower():  # published weights still come through it
        assert getproxies()[name.lower().removesuffix("_proxy")] == proxy and not proxy_bypass("download.example")


def test_a_proxy_that_cannot_be_used_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    before = dict(os.environ)
    url = "http://127.0.0.1:9/api"
    with (
        pytest.raises(FlowError, match="through the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names"),
        connected(Settings(home=home, prefect_url=url), url),
    ):
        pass
    assert dict(os.environ) == before
