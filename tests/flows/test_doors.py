"""Who is served by the Prefect server of a data directory, and what its rows can make our processes do."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.environment import make_secret, read_secret
from flows.server import PrefectServer
from schemas.errors import HomeError, UsageError
from schemas.settings import Settings
from tests.helpers.homes import new_home, remove_home
from tests.helpers.prefect_api import process_of, secret_of, send, wait_for_end


@pytest.fixture(scope="module")
def served() -> Iterator[PrefectServer]:
    home = new_home()
    with PrefectServer(Settings(home=home)) as server:
        server.wait()
        yield server
    remove_home(home)


def home_of(server: PrefectServer) -> Path:
    return server._settings.home


def test_only_who_knows_the_secret_is_served(served: PrefectServer) -> None:
    home = home_of(served)
    secret = secret_of(home)
    assert (home / "prefect" / "secret").stat().st_mode & 0o777 == 0o600 and len(secret) > 40
    assert httpx.get(f"{served.url}/health", trust_env=False, timeout=60).status_code == 200
    for method, path in (("GET", "/admin/version"), ("GET", "/csrf-token?client=x"), ("GET", "/block_types/slug/json")):
        assert httpx.request(method, f"{served.url}{path}", trust_env=False).status_code == 401
        wrong = httpx.request(method, f"{served.url}{path}", auth=("urban-reid", "x" * 43), trust_env=False)
        assert wrong.status_code == 401
    assert send("POST", f"{served.url}/flows/filter", secret, {}).json() == []
    for file in (*home.rglob("*.log"), home / "prefect" / "server.json"):
        assert secret.partition(":")[2] not in file.read_text()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        assert secret.partition(":")[2].encode() not in command


def test_no_page_of_another_site_reads_or_changes_anything(served: PrefectServer) -> None:
    user, _, password = secret_of(home_of(served)).partition(":")
    with httpx.Client(timeout=60, auth=(user, password), trust_env=False, base_url=served.url) as client:
        forged = client.post("/flows/filter", json={})  # without a token that only our own pages get
        assert forged.status_code == 403
        other = client.get("/admin/version", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        own = client.get("/admin/version", headers={"Origin": served.ui_url})
        assert own.headers["access-control-allow-origin"] == served.ui_url
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        assert "access-control-allow-origin" not in client.options("/flows/filter", headers=asked).headers
        port = served.ui_url.rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            assert client.get("/health", headers={"Host": host}).status_code == 400
        for host in ("localhost", f"127.0.0.1:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
            assert client.get("/health", headers={"Host": host}).status_code == 200


def test_a_page_opened_as_localhost_is_led_to_the_address_that_is_answered(served: PrefectServer) -> None:
    port = served.ui_url.rpartition(":")[2]
    with httpx.Client(timeout=60, trust_env=False, base_url=served.ui_url) as client:
        for host in (f"localhost:{port}", f"[::1]:{port}"):
            led = client.get("/runs?page=2", headers={"Host": host})
            assert (led.status_code, led.headers["location"]) == (307, f"{served.ui_url}/runs?page=2")
        assert client.get("/").status_code == 200


def test_the_port_stays_and_can_be_set(home: Path) -> None:
    settings = Settings(home=home)
    ports = []
    for _ in range(2):
        with PrefectServer(settings) as server:
            ports.append(server.url)
            secret = read_secret(settings)
            server.stop()
    assert ports[0] == ports[1] and read_secret(settings) == secret
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^port {port} cannot be used .*--port or URBAN_REID_PREFECT_PORT"):
            PrefectServer(settings.model_copy(update={"prefect_port": port})).__enter__()
        (home / "prefect" / "port").write_text(f"{port}\n")
        with PrefectServer(settings) as server:  # another one, because that of before is taken
            assert server.url not in (ports[0], f"http://127.0.0.1:{port}/api")
            server.stop()
    with PrefectServer(settings.model_copy(update={"prefect_port": port})) as server:
        assert server.url == f"http://127.0.0.1:{port}/api"
        server.stop()


@pytest.mark.parametrize("content", ["", "urban-reid:short", "x" * 54, "urban-reid:" + "é" * 43])
def test_a_damaged_secret_is_one_line_and_the_next_server_makes_one(home: Path, content: str) -> None:
    settings = Settings(home=home)
    file = home / "prefect" / "secret"
    with pytest.raises(HomeError, match="cannot be read"):
        read_secret(settings)
    file.parent.mkdir(mode=0o700)
    file.write_text(content)
    file.chmod(0o644)
    with pytest.raises(HomeError, match="holds no secret"):
        read_secret(settings)
    made = make_secret(settings)
    assert made == read_secret(settings) == make_secret(settings) and file.stat().st_mode & 0o777 == 0o600


def test_a_supervised_server_comes_back_on_its_port_and_others_wait_for_it(home: Path) -> None:
    settings = Settings(home=home)
    with PrefectServer(settings, supervising=True) as server:
        server.wait()
        before = server.url
        asker = [sys.executable, "-c", f"import httpx; print(httpx.get('{before}/health', timeout=60).status_code)"]
        os.kill(process_of(home), signal.SIGKILL)
        wait_for_end(home)
        assert not server.alive()
        with subprocess.Popen(asker, stdout=subprocess.PIPE, env=dict(os.environ)) as waiting:
            server.restart()
            assert server.wait() == before
            assert waiting.communicate()[0] == b"200\n"
        with PrefectServer(settings) as other:
            assert other.url == before
        server.stop()
