"""The API: the same as the pages, for programs with a token, and the client."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from schemas.errors import InputError, UrbanReidError
from tests.helpers.console import As
from tests.helpers.town import Town
from urban_reid.client import Client
from urban_reid.console.app import make_app
from urban_reid.console.limits import Limit
from urban_reid.console.visitors import COOKIE, new_link


@pytest.fixture(scope="module")
def console(resolved: Town) -> Iterator[TestClient]:
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(console: TestClient, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The client of an open home, whose requests go to the application without a socket."""
    monkeypatch.setattr(httpx, "get", lambda link, **_: console.get(link))
    key = console.app.state.console.visitors.key  # type: ignore[attr-defined]
    made = Client.from_link(new_link("http://testserver", key))
    console.cookies.clear()
    made._http = console  # type: ignore[assignment]
    console.headers["Authorization"] = f"Bearer {made.token}"
    monkeypatch.setattr("urban_reid.console.api._REQUESTS", Limit(1000, 1000))
    return made


def test_without_a_token_nothing_is_said(console: TestClient) -> None:
    for path in ("/me", "/city", "/cameras", "/people?unit=d1", f"/people/{uuid4()}", "/pictures/x", "/leads"):
        answer = console.get(f"/api{path}", headers={"Authorization": "Bearer " + "0" * 64})
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer" and "tokens add" in answer.json()["error"]
    assert console.post("/api/searches", headers={"Authorization": "Bearer x"}).status_code == 401
    assert console.get("/api/openapi.json").json()["info"]["title"] == "Urban-ReID"


def test_a_cookie_is_no_token_so_that_no_other_site_can_ask(client: Client, console: TestClient) -> None:
    console.headers.pop("Authorization")
    console.cookies.set(COOKIE, client.token)
    assert console.get("/api/me").status_code == 401


def test_the_client_follows_people_to_their_pictures(
    client: Client, resolved: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.browsing.people.read_people.__defaults__", (None, 3))
    people = list(client.people("d1"))
    with resolved.store.begin() as connection:
        rows = connection.execute(
            text("SELECT persistent_id::text, cardinality(tracklets) AS many FROM identity_now WHERE unit = 'd1'")
        ).all()
    assert {one["identity"] for one in people} == {row.persistent_id for row in rows} and len(people) == len(rows)
    longest = max(rows, key=lambda row: row.many)
    journey = client.journey(longest.persistent_id)
    assert len(journey["passages"]) == longest.many
    assert longest.many == 1 or journey["joins"][0]["words"].startswith(("They look", "By looks"))
    assert client.picture(journey["passages"][0]["pictures"][0]).startswith(b"\xff\xd8")
    district = next(unit for unit in client.city()["units"] if unit["code"] == "d1")
    assert district["people"] == len(rows) and client.me()["is_open"]
    assert client.cameras() == []


def test_the_client_searches_with_a_picture(client: Client, resolved: Town) -> None:
    with resolved.store.begin() as connection:
        row = connection.execute(
            text("SELECT camera, captured_at, picture FROM crop ORDER BY quality DESC LIMIT 1")
        ).one()
    data = CropStore(resolved.store.settings).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    found = client.search("d1", data, reason="case 17")
    assert found["meaning"] == "lead, not identification" and found["hits"]


def test_the_client_searches_with_several_pictures_and_without_one(client: Client, resolved: Town) -> None:
    with resolved.store.begin() as connection:
        rows = connection.execute(
            text("SELECT camera, captured_at, picture FROM crop ORDER BY quality DESC LIMIT 2")
        ).all()
    crops = CropStore(resolved.store.settings)
    data = [crops.get(place_of_crop(row.camera, row.captured_at), bytes(row.picture)) for row in rows]
    found = client.search("d1", *data, reason="case 17", attributes="no hat")
    assert (
        found["hits"]
        and found["attributes"]["asked"] == ["no hat"]
        and found["covered"]["models"] == [resolved.model.name]
    )
    assert found["attributes"]["unknown"] == found["compared"] and found["covered"]["partitions"] > 0
    people = client.search("d1", reason="case 17", attributes="no hat")
    assert people["hits"] == [] and people["not_here"] is None
    with pytest.raises(InputError, match="or say what the person wears"):
        client.search("d1", reason="case 17")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda c: list(c.people("d9")), "no unit"),
        (lambda c: c.journey(uuid4()), "is shown to you now"),
        (lambda c: c.journey("x"), "identity: "),
        (lambda c: c.picture("/api/pictures/x.y"), "no such picture"),
        (lambda c: c.search("d1", b"no picture", reason="case 17"), "picture"),
    ],
)
def test_what_there_is_not_is_said_in_one_line(client: Client, ask: Callable[[Client], object], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        ask(client)
    assert "\n" not in str(error.value)


def test_who_asks_too_often_is_told_how_long_to_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("urban_reid.console.api._REQUESTS", Limit(0.001, 1))
    monkeypatch.setattr("time.sleep", waited.append)
    client.me()
    with pytest.raises(UrbanReidError, match="asked too often; wait"):
        client.me()
    assert waited and all(seconds > 500 for seconds in waited)


def test_a_limit_lets_through_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    limit = Limit(2, 3)
    assert [limit.wait_s("anna") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait_s("ben") == 0
    now[0] = 0.5
    assert limit.wait_s("anna") == 0 and limit.wait_s("anna") > 0


def test_in_a_live_home_a_token_is_worth_what_its_session_is(as_: As) -> None:
    anna = as_("anna")
    headers = {"Authorization": f"Bearer {anna.cookies[COOKIE]}"}
    assert anna.get("/api/me", headers=headers).json()["role"] == "operator"
    refused = anna.get("/api/people?unit=d1", headers=headers)
    assert refused.status_code == 403 and "needs an authorization" in refused.json()["error"]
