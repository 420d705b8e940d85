import asyncio
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from schemas.settings import Settings
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.listening import listen, server_config
from urban_reid.console.visitors import COOKIE, new_link


def test_an_answer_in_two_parts_is_sent_at_once() -> None:
    """Not once the receipt of the first part is in, which a browser sends after 40 ms."""

    async def serve(listening: socket.socket) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(answer, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            is_sent_at_once = await found
            writer.close()
            await writer.wait_closed()
            return is_sent_at_once

    with listen(0) as listening:
        assert asyncio.run(serve(listening))


@contextmanager
def served(town: Town, settings: Settings) -> Iterator[tuple[int, bytes]]:
    """The console on loopback as `up` serves it: its port, and the key of its links."""
    with listen(0) as listening:
        app = make_app(town.store, ["127.0.0.1", *settings.console_hosts])
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1], app.state.console.visitors.key
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("hosts", [(), ("console.example",)], ids=["no proxy is named", "a proxy is named"])
def test_what_a_proxy_says_counts_only_where_one_is_named(resolved: Town, hosts: tuple[str, ...]) -> None:
    settings = resolved.store.settings.model_copy(update={"console_hosts": hosts})
    said = {"x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.7"}
    with served(resolved, settings) as (port, key), httpx.Client(timeout=60, trust_env=False) as client:
        url = f"http://127.0.0.1:{port}"
        plain = client.get(new_link(url, key)).headers
        assert "Secure" not in plain["set-cookie"] and "strict-transport-security" not in plain
        through = client.get(new_link(url, key), headers=said).headers
        assert ("Secure" in through["set-cookie"]) == ("strict-transport-security" in through) == bool(hosts)
        named = client.get(f"{url}/sign-in", headers={"host": "console.example", **said}).status_code
        assert named == (200 if hosts else 400)
        assert client.get(f"{url}/sign-in", headers={"host": "other.example", **said}).status_code == 400


CADDY = """{
    admin off
    auto_https disable_redirects
    skip_install_trust
}
https://console.example:%d {
    tls internal
    reverse_proxy 127.0.0.1:%d
}
"""


@pytest.mark.system
@pytest.mark.skipif(shutil.which("caddy") is None, reason="there is no Caddy here")
def test_behind_caddy_the_console_works_over_tls(resolved: Town, tmp_path: Path) -> None:
    settings = resolved.store.settings.model_copy(update={"console_hosts": ("console.example",)})
    with socket.create_server(("127.0.0.1", 0)) as free:
        outside = free.getsockname()[1]
    with served(resolved, settings) as (port, key):
        (tmp_path / "Caddyfile").write_text(CADDY % (outside, port))
        where = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        words = ["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
        with subprocess.Popen(words, cwd=tmp_path, env=where, stderr=subprocess.DEVNULL) as caddy:
            try:
                browser = httpx.Client(timeout=60, verify=False, trust_env=False)  # noqa: S501  Caddy has just made its authority
                headers = {"host": f"console.example:{outside}", "x-forwarded-proto": "http"}  # which Caddy replaces

                def get(path: str) -> httpx.Response:
                    request = browser.build_request("GET", f"https://127.0.0.1:{outside}{path}", headers=headers)
                    request.extensions["sni_hostname"] = "console.example"
                    return browser.send(request, follow_redirects=False)

                while True:
                    assert caddy.poll() is None
                    try:
                        if get("/sign-in").status_code == 200:
                            break
                    except httpx.ConnectError:
                        pass
                entered = get(new_link("", key))
                cookie = entered.headers["set-cookie"]
                assert entered.status_code == 303 and cookie.startswith(f"__Host-{COOKIE}_{outside}=")
                assert "Secure" in cookie and "strict-transport-security" in entered.headers
                headers["cookie"] = cookie.partition(";")[0]
                shown = get("/")
                assert shown.status_code == 200 and ">Overview<" in shown.text
                with browser.stream(
                    "GET",
                    f"https://127.0.0.1:{outside}/events/overview",
                    headers=headers,
                    extensions={"sni_hostname": "console.example"},
                ) as events:
                    assert next(events.iter_lines()) == "event: message"
            finally:
                caddy.terminate()


def test_a_connection_stays_while_somebody_reads_a_page(tmp_path: Path) -> None:
    assert server_config(None, Settings(home=tmp_path)).timeout_keep_alive >= 60
