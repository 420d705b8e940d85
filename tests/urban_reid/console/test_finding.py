"""Searches of the console: asked again with what was found, narrowed, and begun with one of several people."""

import re
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from tests.helpers.console import As
from tests.helpers.red_detector import RedDetector
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.context import Console
from urban_reid.console.limits import Limit
from urban_reid.console.searching import Offered
from urban_reid.console.visitors import COOKIE, new_link

RED = (0, 0, 255)  # BGR


@pytest.fixture(scope="module")
def client(resolved: Town) -> Iterator[TestClient]:
    """Signed in to an open home."""
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=False) as client:
        assert client.get(new_link("", console(client).visitors.key)).status_code == 303
        yield client


def console(client: TestClient) -> Console:
    found = client.app.state.console  # type: ignore[attr-defined]
    assert isinstance(found, Console)
    return found


def hidden(page: str, name: str) -> list[str]:
    """The values of hidden fields of a page."""
    return re.findall(rf'type="hidden" name="{name}" value="([^"]*)"', page)


def offered(page: str, name: str) -> list[str]:
    """The values of buttons of a page."""
    return re.findall(rf'<button [^>]*name="{name}" value="([^"]*)"', page)


def people(page: str) -> list[str]:
    return re.findall(r'href="/person/([0-9a-f-]{36})"', page)


def best_picture(town: Town) -> bytes:
    with town.store.begin() as connection:
        row = connection.execute(
            text(
                "SELECT c.camera, c.captured_at, c.picture FROM identity_now i JOIN identity_member m "
                "ON m.identity_id = i.tracklets[1] JOIN crop c ON c.id = m.crop_id WHERE i.unit = 'd1' "
                "ORDER BY cardinality(i.tracklets) DESC, c.quality DESC LIMIT 1"
            )
        ).one()
    return CropStore(town.store.settings).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))


def form(client: TestClient) -> dict[str, str]:
    (key,) = set(hidden(client.get("/search").text, "form_key"))
    return {"unit": "d1", "reason": "case 17", "form_key": key}


def test_a_search_goes_on_with_who_it_is_and_who_not(client: TestClient, resolved: Town) -> None:
    fields = form(client)
    first = client.post("/search", data=fields, files={"upload": ("person.jpg", best_picture(resolved))}).text
    (probe,) = hidden(first, "probe")
    found = people(first)
    without = client.post("/search", data=fields | {"probe": probe, "minus": offered(first, "minus")[0]}).text
    assert people(without) and found[0] not in people(without)
    (unlike,) = hidden(without, "unlike")
    kept = fields | {"probe": probe, "unlike": unlike}
    both = client.post("/search", data=kept | {"plus": offered(without, "plus")[0]}).text
    assert len(hidden(both, "like")) == 1 and found[0] not in people(both)
    back = client.post("/search", data=kept | {"drop": unlike}).text
    assert people(back)[0] == found[0] and not hidden(back, "unlike")
    with resolved.store.owning() as connection:
        query = "SELECT is_person, count(DISTINCT request_id) AS searches FROM search_example GROUP BY 1 ORDER BY 1"
        assert [tuple(row) for row in connection.execute(text(query))] == [(False, 2), (True, 1)]


def test_hours_of_nobody_find_nobody(client: TestClient, resolved: Town) -> None:
    sent = {"upload": ("person.jpg", best_picture(resolved))}
    with resolved.store.begin() as connection:
        zone = connection.scalar(text("SELECT timezone FROM city"))
        hour = "EXTRACT(hour FROM first_seen AT TIME ZONE :zone)::int"
        hours = set(connection.scalars(text(f"SELECT {hour} FROM identity_now WHERE unit = 'd1'"), {"zone": zone}))
    empty = next(hour for hour in range(1, 24) if not {hour - 1, hour, (hour + 1) % 24} & hours)
    night = {"day_from": f"{empty:02}:00", "day_to": f"{empty:02}:30"}
    page = client.post("/search", data=form(client) | night, files=sent).text
    assert "0 leads" in page and not people(page)
    wrong = client.post("/search", data=form(client) | {"day_from": "08:00"}, files=sent)
    assert wrong.status_code == 400 and "both hours" in wrong.text
    late = client.post("/search", data=form(client) | {"from_time": "2100-01-01T00:00"}, files=sent).text
    assert "0 leads" in late
    assert client.post("/search", data=form(client) | {"from_time": "soon"}, files=sent).status_code == 400


def test_one_of_several_people_is_chosen_and_the_others_are_not_kept(client: TestClient, resolved: Town) -> None:
    frame = np.full((120, 200, 3), 90, np.uint8)
    for left in (20, 150):
        cv2.rectangle(frame, (left, 30), (left + 29, 99), RED, -1)
    sent = {"upload": ("street.png", cv2.imencode(".png", frame)[1].tobytes())}
    count = text("SELECT count(*) FROM probe")
    with resolved.store.begin() as connection:
        before = connection.scalar(count)
    console(client).searches._detector = RedDetector()
    try:
        asked = client.post("/search", data=form(client), files=sent).text
    finally:
        console(client).searches._detector = None
    names = offered(asked, "chosen")
    assert len(names) == 2 and "Who is it?" in asked
    assert client.get(f"/search/people/{names[1]}").headers["content-type"] == "image/png"
    with resolved.store.begin() as connection:
        assert connection.scalar(count) == before
    assert people(client.post("/search", data=form(client) | {"chosen": names[1]}).text)
    with resolved.store.begin() as connection:
        assert connection.scalar(count) == before + 1
    link = new_link("", console(client).visitors.key)
    mine = dict(client.cookies)
    client.cookies.clear()
    client.get(link)
    assert client.get(f"/search/people/{names[1]}").status_code == 404, "another visitor's"
    assert "not kept any more" in client.post("/search", data=form(client) | {"chosen": names[1]}).text
    client.cookies.clear()
    client.cookies.update(mine)


def test_pictures_to_choose_from_are_kept_within_bounds(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    found = console(client)
    visitor = found.visitors.find(dict(client.cookies)[COOKIE])
    assert visitor is not None
    kept = Offered()
    first = kept.keep([b"a" * 40, b"b" * 40], visitor)
    monkeypatch.setattr("urban_reid.console.searching._OFFERED", 100)
    second = kept.keep([b"c" * 40], visitor)
    assert [kept.get(name, visitor) is not None for name in (*first, *second)] == [False, True, True]
    monkeypatch.setattr("urban_reid.console.searching._OFFERED_S", 0.0)
    assert kept.get(second[0], visitor) is None


def test_who_searches_very_often_is_told_to_wait(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urban_reid.console.finding._SEARCHES", Limit(0.001, 1))
    fields = form(client)
    assert "choose a picture" in client.post("/search", data=fields).text
    assert "very often; wait" in client.post("/search", data=fields).text


def test_people_are_looked_for_only_for_whoever_may_search(as_: As) -> None:
    """The last one: it makes the home a live one."""
    anna = as_("anna")  # signed in, and under no authorization
    frame = np.full((120, 200, 3), 90, np.uint8)
    cv2.rectangle(frame, (20, 30), (49, 99), RED, -1)
    cv2.rectangle(frame, (150, 30), (179, 99), RED, -1)
    sent = {"upload": ("street.png", cv2.imencode(".png", frame)[1].tobytes())}
    console(anna).searches._detector = RedDetector()
    (key,) = set(re.findall(r'name="form_key" value="(\w+)"', anna.get("/cases").text))
    answer = anna.post("/search", data={"unit": "d1", "reason": "case 17", "form_key": key}, files=sent)
    assert answer.status_code == 403 and "Who is it?" not in answer.text
