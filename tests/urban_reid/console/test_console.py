"""The console's pages: who gets them, what they show, and what they keep others from."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from subprocess import PIPE

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.governance.audit import Action, read_audit
from tests.helpers.command_line import environment_of, error_of, program
from tests.helpers.pool import eventually
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.visitors import COOKIE, Visitors, new_link


@pytest.fixture(scope="module")
def app(resolved: Town) -> Iterator[TestClient]:
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(app: TestClient) -> TestClient:
    """Signed in to an open home."""
    app.cookies.clear()
    entered = app.get(new_link("", visitors(app).key))
    assert entered.status_code == 303
    return app


def visitors(client: TestClient) -> Visitors:
    found = client.app.state.console.visitors  # type: ignore[attr-defined]
    assert isinstance(found, Visitors)
    return found


def form_key(client: TestClient) -> str:
    found = re.search(r'name="form_key" value="(\w+)"', client.get("/search").text)
    assert found is not None
    return found[1]


def test_the_printed_link_lets_one_in_once(app: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    app.cookies.clear()
    assert app.get("/").headers["location"] == "/sign-in?to=%2F"
    link = new_link("", visitors(app).key)
    assert app.get("/enter/wrong").status_code == 403
    assert app.get(f"{link[:-1]}x").status_code == 403
    assert app.get(new_link("", b"another console's")).status_code == 403
    entered = app.get(link)
    assert entered.headers["location"] == "/"
    assert "HttpOnly" in entered.headers["set-cookie"] and "SameSite=strict" in entered.headers["set-cookie"]
    assert app.get("/").status_code == 200
    assert app.get(link).status_code == 403
    monkeypatch.setattr("urban_reid.console.visitors.LINK_S", -1)
    assert app.get(new_link("", visitors(app).key)).status_code == 403


def test_of_two_who_follow_a_link_at_once_one_is_let_in(resolved: Town) -> None:
    """The second one comes while the database is asked for the first one."""
    let_in: list[str | None] = []

    class Raced(Visitors):
        def is_open_home(self) -> bool:
            if not let_in:
                let_in.append(None)
                let_in.append(self.enter(link))
            return super().is_open_home()

    raced = Raced(resolved.store)
    link = new_link("", raced.key).removeprefix("/enter/")
    let_in.append(raced.enter(link))
    assert sum(cookie is not None for cookie in let_in) == 1


def test_a_sign_out_ends_the_visit(client: TestClient) -> None:
    cookie = client.cookies[COOKIE]
    assert client.post("/sign-out", data={"form_key": form_key(client)}).headers["location"] == "/sign-in"
    client.cookies.set(COOKIE, cookie)
    assert client.get("/").status_code == 303


def test_every_answer_forbids_scripts_and_frames_of_others(client: TestClient) -> None:
    for path in ("/", "/sign-in", "/people/d1", "/people/d9", "/nowhere", "/static/console.css"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_no_other_site_can_send_a_form_or_call_the_console_by_another_name(client: TestClient) -> None:
    fields = {"unit": "d1", "reason": "case 17", "like": "x.y"}
    assert client.post("/search", data=fields).status_code == 403
    with_key = fields | {"form_key": form_key(client)}
    assert client.post("/search", data=with_key, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_the_overview_counts_what_the_city_holds(client: TestClient, resolved: Town) -> None:
    shown = client.get("/").text
    with resolved.store.begin() as connection:
        people = connection.scalar(text("SELECT count(*) FROM identity_now WHERE level = 'district'"))
        units = connection.scalars(text("SELECT code FROM urban_unit")).all()
    assert f"{people} people in 1 district" in shown
    assert all(f'href="/people/{unit}"' in shown for unit in units)


def test_people_come_page_by_page_each_once(
    client: TestClient, resolved: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.browsing.people.read_people.__defaults__", (None, 3))
    seen: list[str] = []
    path: str | None = "/people/d1"
    while path is not None:
        shown = client.get(path)
        assert shown.status_code == 200
        seen += re.findall(r'href="/person/([0-9a-f-]{36})"', shown.text)
        following = re.search(r'href="(/people/[^"]+)" rel="next"', shown.text)
        path = following and following[1].replace("&amp;", "&")
    with resolved.store.owning() as connection:
        now = connection.scalars(
            text("SELECT persistent_id::text FROM identity_now WHERE unit = 'd1' ORDER BY last_seen DESC, id DESC")
        ).all()
        assert len(now) > 3
        assert seen == now
        looks = read_audit(connection, action=Action.PEOPLE_SHOW, unit="d1", last=100)
    assert len(looks) >= len(now) // 3


def test_a_journey_shows_each_passage_with_pictures_that_others_cannot_ask_for(
    client: TestClient, resolved: Town
) -> None:
    identity = re.search(r'href="(/person/[0-9a-f-]{36})"', client.get("/people/d1").text)
    assert identity is not None
    shown = client.get(identity[1]).text
    with resolved.store.owning() as connection:
        tracklets = connection.scalar(
            text("SELECT cardinality(tracklets) FROM identity_now WHERE persistent_id::text = :id"),
            {"id": identity[1].rpartition("/")[2]},
        )
        assert read_audit(connection, last=1)[0].action == Action.PERSON_SHOW
    assert shown.count('<article class="passage">') == tracklets
    pictures = re.findall(r'src="(/pictures/[^"]+)"', shown)
    assert pictures
    picture = client.get(pictures[0])
    assert picture.headers["content-type"] == "image/jpeg" and picture.content.startswith(b"\xff\xd8")
    said, _, signature = pictures[0].partition(".")
    assert client.get(f"{said}.{signature[:-2]}AA").status_code == 404
    assert client.get(f"{said[:-2]}AA.{signature}").status_code == 404
    client.cookies.clear()
    assert client.get(pictures[0]).status_code == 303
    client.get(new_link("", visitors(client).key))
    assert client.get(pictures[0]).status_code == 404  # signed for another visitor


def test_what_the_model_looked_at_is_shown_for_ones_own_pictures_alone(client: TestClient, resolved: Town) -> None:
    with resolved.store.begin() as connection:
        longest = connection.scalar(
            text("SELECT persistent_id::text FROM identity_now WHERE unit = 'd1' ORDER BY cardinality(tracklets) DESC")
        )
    shown = client.get(f"/person/{longest}").text
    assert "Why these passages were put together" in shown
    path = re.findall(r'href="(/compare[^"]+)"', shown)[0].replace("&amp;", "&")
    looked = client.get(path)
    assert looked.status_code == 200 and '<rect class="' in looked.text
    assert "is not there any more" in client.get(path[:-2] + "AA").text
    with resolved.store.owning() as connection:
        (row, _) = read_audit(connection, action=Action.PERSON_SHOW, last=2)
    assert row.details["compared"]


def test_a_search_by_a_picture_finds_the_person_in_it(client: TestClient, resolved: Town) -> None:
    with resolved.store.begin() as connection:
        row = connection.execute(
            text(
                "SELECT c.camera, c.captured_at, c.picture, i.persistent_id::text AS id "
                "FROM identity_now i JOIN identity_member m ON m.identity_id = i.tracklets[1] "
                "JOIN crop c ON c.id = m.crop_id WHERE i.unit = 'd1' ORDER BY cardinality(i.tracklets) DESC, c.quality "
                "DESC LIMIT 1"
            )
        ).one()
    data = CropStore(resolved.store.settings).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    fields = {"unit": "d1", "reason": "case 17", "form_key": form_key(client)}
    by_picture = client.post("/search", data=fields, files={"upload": ("person.jpg", data)})
    assert by_picture.status_code == 200, by_picture.text
    first = re.search(r'href="/person/([0-9a-f-]{36})"', by_picture.text)
    assert first is not None and first[1] == row.id
    likes = re.findall(r'href="(/search\?unit=d1&amp;like=([^"]+))"', client.get(f"/person/{row.id}").text)
    assert f'value="{likes[0][1]}"' in client.get(likes[0][0].replace("&amp;", "&")).text
    by_crop = client.post("/search", data=fields | {"like": likes[0][1]})
    assert f"/person/{row.id}" in by_crop.text
    shown = by_crop.text
    assert re.search(r">[^<,]+, [^<,]+<", shown[shown.index('id="hits"') :]), "places of a hit are apart"
    assert "not there any more" in client.post("/search", data=fields | {"like": likes[0][1][:-3] + "AAA"}).text
    with resolved.store.owning() as connection:
        asked = read_audit(connection, action=Action.SEARCH_START, last=2)
    assert [one.reason for one in asked] == ["case 17", "case 17"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/people/d9", 400, "no unit"),
        ("/person/00000000-0000-0000-0000-000000000000", 400, "is shown to you now"),
        ("/person/x", 422, "cannot be read: identity"),
        ("/nowhere", 404, "There is no such page"),
        ("/static/pages.py", 404, "no such file"),
        ("/pictures/x", 404, "no such picture"),
    ],
)
def test_what_there_is_not_is_said(client: TestClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert said in answer.text


def test_large_forms_and_forms_of_nobody_are_not_read(client: TestClient) -> None:
    too_large = {"content-length": "22000000", "content-type": "multipart/form-data; boundary=x"}
    assert client.post("/search", content=b"x", headers=too_large).status_code == 413
    chunked = {"content-length": "5", "transfer-encoding": "chunked"}  # the second one counts
    plain = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/sign-in", content=b"name=", headers=plain | chunked).status_code == 413
    multipart = {"content-type": "multipart/form-data"}  # without a boundary, which is seen when it is read
    for cookie in (None, "x", "0" * 64):
        client.cookies.clear()
        client.cookies.update({} if cookie is None else {COOKIE: cookie})
        for path in ("/search", "/plan", "/sign-in"):
            assert client.post(path, content=b"x" * 30_000, headers=multipart).headers["location"] == "/sign-in"
        token = {"authorization": f"Bearer {cookie}"}
        refused = client.post("/api/searches", content=b"x" * 30_000, headers=multipart | token)
        assert refused.status_code == 401 and "a token is needed" in refused.json()["error"]


def test_what_is_no_picture_is_said(client: TestClient) -> None:
    fields = {"unit": "d1", "reason": "case 17", "form_key": form_key(client)}
    answer = client.post("/search", data=fields, files={"upload": ("person.jpg", b"no picture")})
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert "choose a picture" in client.post("/search", data=fields).text


@pytest.mark.system
def test_the_command_serves_until_it_is_interrupted(resolved: Town) -> None:
    words = program("console", "--port", "0", "--json")
    with subprocess.Popen(words, env=environment_of(resolved.store.settings), stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        try:
            with httpx.Client(timeout=60, trust_env=False, follow_redirects=True) as client:
                assert "Sign in" in client.get(said["url"]).text
                assert "Overview" in client.get(said["link"]).text
                eventually(lambda: "people in 1 district" in client.get(said["url"]).text)  # once they are counted
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)


def test_a_port_that_is_taken_is_said(resolved: Town) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = program("console", "--port", str(port))
        done = subprocess.run(
            words, env=environment_of(resolved.store.settings), capture_output=True, text=True, check=False
        )
    assert error_of(done, 2).startswith(f"--port {port}: Address already in use")
