"""The console while a part of the city is away: what pages say, what comes back to be sent again, what streams say."""

import asyncio
import html
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import URL

from pipeline.store import Store
from schemas.disk import try_lock
from schemas.errors import CoreUnavailable, StoreUnavailable
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.away import Watch
from urban_reid.console.context import Console
from urban_reid.console.limits import Place, Places
from urban_reid.console.overview import changes
from urban_reid.console.visitors import COOKIE, cookie_name, new_link


@pytest.fixture(scope="module")
def client(resolved: Town) -> Iterator[TestClient]:
    """Signed in to an open home."""
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=False) as opened:
        opened.get(new_link("", console_of(opened).visitors.key))
        yield opened


def console_of(client: TestClient) -> Console:
    found = client.app.state.console  # type: ignore[attr-defined]
    assert isinstance(found, Console)
    return found


@contextmanager
def away(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    """As when the database is lost with the first statement of each transaction."""

    def lost(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_transaction", lost)
        yield


LOST = StoreUnavailable("the database in /home/x does not answer: server closed the connection unexpectedly")


def test_a_page_says_what_is_away_since_when_and_that_it_asks_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with away(monkeypatch, LOST):
        answer = client.get("/people/d1")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "3"
    assert 'data-reload="3"' in answer.text and "asks again every few seconds" in answer.text
    assert re.search(r"away since \d\d:\d\d:\d\d", answer.text)
    assert "server closed the connection" in answer.text and client.get("/people/d1").status_code == 200


def test_a_form_that_was_not_carried_out_comes_back_to_be_sent_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"unit": "d1", "reason": 'case "17" <b>', "form_key": "0" * 64}
    with away(monkeypatch, LOST):
        answer = client.post("/search?x=1", data=said, files={"upload": ("p.jpg", b"a picture")})
    assert answer.status_code == 503 and "was not carried out" in answer.text
    kept = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', answer.text)
    assert {name: html.unescape(value) for name, value in kept} == said
    assert 'action="/search?x=1"' in answer.text and "has to be chosen again" in answer.text
    assert "data-reload" not in answer.text


@pytest.mark.parametrize("size", [300, 30_000])
def test_a_form_of_any_size_has_its_answer_while_the_database_is_away(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    sent = {"upload": ("p.jpg", b"x" * size)}
    with away(monkeypatch, LOST):
        page = client.post("/search", data={"unit": "d1"}, files=sent, headers={"accept-language": "de"})
        told = client.post("/api/searches", files=sent, headers={"Authorization": f"Bearer {client.cookies[COOKIE]}"})
    assert page.status_code == 503 and page.headers["retry-after"] == "3" and "antwortet nicht" in page.text
    assert told.status_code == 503 and told.json() == {"error": str(LOST)}
    for answer in (page, told):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"


def test_a_password_does_not_come_back(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with away(monkeypatch, LOST):
        answer = client.post("/sign-in", data={"name": "anna", "password": "hunter2"})
    assert answer.status_code == 503 and "hunter2" not in answer.text and "send it again" in answer.text


def test_a_search_waits_for_what_is_away_and_asks_once(
    client: TestClient, resolved: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(_: Any, request: Any) -> None:
        asked.append(request)
        if len(asked) < 3:
            raise CoreUnavailable("the search process does not answer")

    monkeypatch.setattr("urban_reid.console.searching.ask_process", ask)
    monkeypatch.setattr("urban_reid.console.searching._TRIED_EVERY_S", 0)
    key = re.search(r'name="form_key" value="(\w+)"', client.get("/search").text)
    person = re.search(r'href="(/person/[0-9a-f-]{36})"', client.get("/people/d1").text)
    assert key and person
    like = re.search(r"like=([^\"]+)\"", client.get(person[1]).text)
    assert like
    found = client.post("/search", data={"unit": "d1", "reason": "case 17", "like": like[1], "form_key": key[1]})
    assert found.status_code == 200 and len(asked) == 3 and len(set(asked)) == 1


def test_a_stream_says_that_the_city_does_not_answer_and_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, cookie = console_of(client), client.cookies[COOKIE]
    monkeypatch.setattr("urban_reid.console.overview._LOOK_EVERY_S", 0)

    async def stays() -> bool:
        return False

    async def three() -> list[str]:
        stream = changes(console, cookie, "cameras", place := Place("anna"), stays)
        said = [await anext(stream)]
        with away(monkeypatch, LOST):
            said.append(await anext(stream))
        said.append(await anext(stream))
        place.is_over = True
        return [*said, *[one async for one in stream]]

    first, lost, back, last = asyncio.run(three())
    assert first == back and first.startswith("event: message\n")
    assert lost.startswith("event: away\n") and "does not answer since" in lost
    assert last.startswith("event: over\n") and "in many windows" in last


def test_a_stream_is_not_silent_while_the_database_is_waited_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that hangs is told of after a while, and its answer comes all the same."""
    console, cookie = console_of(client), client.cookies[COOKIE]
    monkeypatch.setattr("urban_reid.console.overview._PATIENCE_S", 0)
    go_on = asyncio.Event()

    async def slow(*_: Any) -> tuple[str, str]:
        await go_on.wait()
        return "message", "here"

    monkeypatch.setattr("urban_reid.console.overview.run_in_threadpool", slow)

    async def stays() -> bool:
        return False

    async def two() -> tuple[str, str]:
        stream = changes(console, cookie, "cameras", Place("anna"), stays)
        first = await anext(stream)
        go_on.set()
        while (following := await anext(stream)) == first:
            pass
        return first, following

    first, following = asyncio.run(two())
    assert first.startswith("event: away\n") and following == 'event: message\ndata: "here"\n\n'


def test_a_visitor_has_a_few_streams_the_newest_and_all_together_are_bounded() -> None:
    places = Places(2, 3)
    one, two, three = (places.take("anna") for _ in range(3))
    assert one and two and three and (one.is_over, two.is_over, three.is_over) == (True, False, False)
    places.free(one)  # its page has gone
    assert places.take("ben") and places.take("cleo") is None
    four = places.take("anna")
    assert four and two.is_over
    places.free(three)
    assert places.take("cleo")


def test_streams_that_are_too_many_are_refused_and_places_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = console_of(client)
    monkeypatch.setattr(console, "streams", Places(1, 1))
    console.visitors.find(client.cookies[COOKIE])
    other = console.streams.take("somebody else")
    assert other and client.get("/events/overview").status_code == 503
    console.streams.free(other)

    async def gone(*_: Any) -> Any:
        yield "event: over\ndata: 0\n\n"

    monkeypatch.setattr("urban_reid.console.overview.changes", gone)
    for _ in range(3):
        assert client.get("/events/overview").status_code == 200
    assert console.streams.take("somebody else")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://console/", COOKIE),
        ("http://127.0.0.1:8420/", f"{COOKIE}_8420"),
        ("http://127.0.0.1:8421/x", f"{COOKIE}_8421"),
        ("https://console/", f"__Host-{COOKIE}"),
        ("https://console:8443/", f"__Host-{COOKIE}_8443"),
    ],
)
def test_consoles_on_one_machine_have_cookies_of_their_own(url: str, name: str) -> None:
    assert cookie_name(URL(url)) == name


def test_two_consoles_on_one_machine_do_not_sign_each_other_out(resolved: Town) -> None:
    """As a browser: one jar of cookies for a host, whatever its port."""
    opened = [TestClient(make_app(resolved.store, ["127.0.0.1"]), f"http://127.0.0.1:{port}") for port in (8420, 8421)]
    for one in opened:
        one.cookies = opened[0].cookies
        one.get(new_link("", console_of(one).visitors.key))
    assert [one.get("/", follow_redirects=False).status_code for one in opened] == [200, 200]


def test_behind_tls_the_cookie_is_secure_and_a_port_that_is_none_breaks_nothing(resolved: Town) -> None:
    client = TestClient(make_app(resolved.store, ["console"]), "https://console", follow_redirects=False)
    entered = client.get(new_link("", console_of(client).visitors.key))
    said = entered.headers["set-cookie"]
    assert said.startswith("__Host-") and "Secure" in said and "Path=/" in said and "Domain" not in said
    assert client.get("/").status_code == 200
    for port in ("99999999", "x", "-1"):
        assert client.get("/", headers={"host": f"console:{port}"}).status_code in (200, 303, 400)


def test_the_watch_finds_what_is_away_and_back_again(resolved: Town) -> None:
    """Prefect's port answers for a server that was killed, as `up` keeps it; what was never there is not missed yet."""
    settings = resolved.store.settings
    watch = Watch(resolved.store)
    with socket.create_server(("127.0.0.1", 0)) as silent, (settings.home / "up.lock").open("wb") as held:
        assert try_lock(held)
        port = silent.getsockname()[1]
        resolved.store.settings = settings.model_copy(update={"prefect_url": f"http://127.0.0.1:{port}/api"})
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("urban_reid.console.away._PREFECT_WITHIN_S", 0.01)
                watch._look_at_processes()
                assert watch.away() == []
                patch.setattr("urban_reid.console.away._STARTS_WITHIN_S", 0)
                watch._look_at_processes()
                assert {one.part for one in watch.away()} == {"core", "search", "prefect"}
        finally:
            resolved.store.settings = settings
    watch._look_at_processes()  # nothing is up, so nothing is missed
    watch._look_at_database()
    assert watch.away() == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "errors", lambda _: (_ for _ in ()).throw(LOST))
        watch._look_at_database()
    (lost,) = watch.away()
    assert lost.part == "database" and watch.since("database") == lost.since
    watch._look_at_database()
    assert watch.away() == []
