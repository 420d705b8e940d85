"""The console in a home with people of real cameras: nobody sees anything without an account and an authorization."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.city.units import read_city_file, store_city
from pipeline.store import Store, embedded
from schemas.settings import Settings
from tests.helpers.homes import become_live, superuser_of
from tests.helpers.people import PASSWORD, add_people
from urban_reid.console.app import make_app
from urban_reid.console.visitors import COOKIE, new_link


@pytest.fixture
def client(server: embedded.EmbeddedServer, settings: Settings, store: Store, city_files: Path) -> Iterator[TestClient]:
    store_city(store, read_city_file(city_files / "city.yaml"))
    become_live(superuser_of(server, settings))
    add_people(store)
    with TestClient(make_app(store, ["testserver"]), follow_redirects=False) as opened:
        yield opened


def sign_in(client: TestClient, name: str, password: str = PASSWORD, **fields: str) -> int:
    return client.post("/sign-in", data={"name": name, "password": password, **fields}).status_code


def test_who_signs_in_sees_counts_and_with_an_authorization_people(
    server: embedded.EmbeddedServer, settings: Settings, client: TestClient
) -> None:
    assert client.get("/").headers["location"] == "/sign-in?to=%2F"
    assert client.get(new_link("", client.app.state.console.visitors.key)).status_code == 403  # type: ignore[attr-defined]
    assert sign_in(client, "anna", "wrong") == 403 and sign_in(client, "nobody") == 403
    assert COOKIE not in client.cookies
    assert sign_in(client, "anna") == 303
    assert "0 people in 1 district" in client.get("/").text
    refused = client.get("/people/d1")
    assert refused.status_code == 403 and "needs an authorization" in refused.text
    with superuser_of(server, settings)() as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # the rules of cases are tested in test_casework
        cursor.execute(
            "WITH c AS (INSERT INTO case_file (name, opened_by) SELECT 'case 17', id FROM account WHERE name = 'anna' "
            "RETURNING id) INSERT INTO case_authorization (case_id, purpose, legal_basis, sought, units, from_time, "
            "to_time, expires_at, asked_by, approved_by, approved_at) SELECT c.id, 'missing person', 'law', 'a child', "
            "'{d1}', now() - interval '1 day', now(), now() + interval '1 day', a.id, b.id, now() "
            "FROM c, account a, account b WHERE a.name = 'anna' AND b.name = 'ben' RETURNING id"
        )
        (authorization,) = cursor.fetchone()
    short = client.post("/sign-in", data={"name": "anna", "password": PASSWORD, "authorization": "0648b8fc"})
    assert short.status_code == 403 and "write the whole id of the authorization" in short.text
    assert sign_in(client, "anna", authorization=authorization, to="//evil.example") == 303
    shown = client.get("/people/d1")
    assert shown.status_code == 200 and "in the time that your authorization covers" in shown.text


def test_a_sign_out_ends_the_session_in_the_database(client: TestClient, store: Store) -> None:
    assert sign_in(client, "cleo") == 303
    cookie = client.cookies[COOKIE]
    key = re.search(r'name="form_key" value="(\w+)"', client.get("/").text)
    assert key is not None
    assert client.post("/sign-out", data={"form_key": key[1]}).status_code == 303
    with store.signing_in() as connection:
        assert connection.scalar(text("SELECT count(*) FROM session WHERE ended_at IS NULL")) == 0
    client.cookies.set(COOKIE, cookie)
    assert client.get("/").status_code == 303


def test_a_sign_in_ends_the_session_whose_cookie_it_takes(client: TestClient, store: Store) -> None:
    for name, password, status in (("cleo", PASSWORD, 303), ("anna", "wrong", 403)):
        assert sign_in(client, name, password) == status
    before = client.cookies[COOKIE]
    assert client.get("/").status_code == 200  # which a refused sign-in leaves
    assert sign_in(client, "anna") == 303 and client.cookies[COOKIE] != before
    with store.owning() as connection:
        ended = connection.execute(text("SELECT actor FROM audit WHERE action = 'session.end'")).all()
        assert [row.actor for row in ended] == ["cleo"]
        assert connection.scalar(text("SELECT count(*) FROM session WHERE ended_at IS NULL")) == 1
    client.cookies.set(COOKIE, "no token at all")
    assert sign_in(client, "cleo") == 303


def test_one_comes_back_to_where_one_was(client: TestClient) -> None:
    led = client.get("/people/d1?after=7&at=2026-01-01T00:00:00%2B00:00").headers["location"]
    to = parse_qs(urlsplit(led).query)["to"][0]
    assert to == "/people/d1?after=7&at=2026-01-01T00:00:00%2B00:00"
    assert f'name="to" value="{html.escape(to)}"' in client.get(led).text
    sent = client.post("/sign-in", data={"name": "anna", "password": PASSWORD, "to": to})
    assert sent.headers["location"] == to


def test_one_comes_back_to_a_page_of_this_site_alone(client: TestClient) -> None:
    for to, led in (
        ("/people/d1", "/people/d1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://x", "/"),
    ):
        sent = client.post("/sign-in", data={"name": "anna", "password": PASSWORD, "to": to})
        assert sent.headers["location"] == led
