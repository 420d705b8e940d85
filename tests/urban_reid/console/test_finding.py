"""Searches of the console: asked again with what was found, narrowed, and begun with one of several people."""

import re
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop, place_of_probe
from pipeline.crops.quality import decode
from tests.helpers.console import As
from tests.helpers.governed import Governed
from tests.helpers.pictures import encoded, noise, scan_bomb
from tests.helpers.red_detector import RedDetector
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.context import Console
from urban_reid.console.limits import Limit
from urban_reid.console.searching import Offered
from urban_reid.console.uploads import Uploads
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
    (sent,) = hidden(first, "sent")  # is shown beside who was found
    assert np.array_equal(decode(client.get(f"/search/people/{sent}").content), decode(best_picture(resolved)))
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


def test_the_console_stores_what_it_made_and_not_what_was_sent(client: TestClient, resolved: Town) -> None:
    pixels = noise(256, 128)
    sent = encoded(pixels, "JPEG", comment=b"from a phone at 51.05 N")
    page = client.post("/search", data=form(client), files={"upload": ("a.jpg", sent)}).text
    (probe,) = hidden(page, "probe")
    with resolved.store.owning() as connection:
        row = connection.execute(text("SELECT picture, uploaded_at FROM probe WHERE id = :id"), {"id": probe}).one()
    stored = CropStore(resolved.store.settings).get(place_of_probe(row.uploaded_at), bytes(row.picture))
    assert stored.startswith(b"\x89PNG") and b"phone" not in stored and (decode(stored) == decode(sent)).all()


def test_a_bomb_gives_one_line_and_the_console_lives_on(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    here = console(client)
    monkeypatch.setattr(here.searches, "uploads", Uploads(here.store.settings, cpu_s=1))
    monkeypatch.setattr(here, "uploads", here.searches.uploads)
    for path in ("/search", "/plan"):
        answer = client.post(path, data=form(client), files={"upload": ("a.jpg", scan_bomb())})
        assert answer.status_code == 400
        assert "the picture cannot be decoded: it is damaged, or takes more memory or time" in answer.text
    assert client.get("/").status_code == 200


def test_several_pictures_are_searched_for_together(client: TestClient, resolved: Town) -> None:
    data = best_picture(resolved)
    darker = cv2.imencode(".png", decode(data)[:, :, ::-1] // 2)[1].tobytes()
    sent = [("upload", ("one.jpg", data)), ("upload", ("two.png", darker))]
    first = client.post("/search", data=form(client), files=sent).text
    probes = hidden(first, "probe")
    assert len(probes) == 2 and people(first)
    again = client.post("/search", data=form(client) | {"probe": probes, "plus": offered(first, "plus")[0]}).text
    assert hidden(again, "probe") == probes and len(hidden(again, "like")) == 1


def test_a_filter_is_kept_and_says_what_it_did(client: TestClient, resolved: Town) -> None:
    sent = {"upload": ("person.jpg", best_picture(resolved))}
    page = client.post("/search", data=form(client) | {"wears": ["", "no hat", "red top"]}, files=sent).text
    assert people(page) and "Asked for: red top, no hat. 0 show that" in page
    assert "not known what they wear" in page
    assert '<option value="red top" selected>' in page and '<option value="no hat" selected>' in page
    assert "43%" in page and "Somebody" not in page
    above, _, below = page.partition('<ul class="grid">')  # where one sees what a filter changes
    assert '<select name="wears" id="wears-top" form="ask">' in above and 'name="wears"' not in below
    alone = client.post("/search", data=form(client) | {"wears": ["no hat"]}).text
    assert "0 people who show it" in alone and "Nobody was compared with a picture" in alone and not people(alone)
    wrong = client.post("/search", data=form(client) | {"wears": ["male"]})
    assert wrong.status_code == 400 and "is no attribute" in wrong.text


def test_each_result_shows_what_speaks_for_it_and_its_journey_beside(client: TestClient, resolved: Town) -> None:
    page = client.post("/search", data=form(client), files={"upload": ("person.jpg", best_picture(resolved))}).text
    found = people(page)
    first = page.partition("Figures and all pictures")[2].partition("</details>")[0]
    assert "Difference" in first and "say nothing" in first and resolved.model.name in first
    lineage = re.findall(r'<a href="/person/([0-9a-f-]{36})">', first)
    assert lineage[0] == found[0] and len(set(lineage)) >= 4
    for one in lineage[:4]:  # the person, the street's, the building's, the passage
        assert client.get(f"/person/{one}").status_code == 200
    assert "Everybody was compared in full" in page and "By itself, the city joins two from" in page
    beside = client.get(f"/person/{found[0]}/beside").text
    assert 'class="lanes"' in beside and 'class="plan"' in beside and " seen" in beside and "<html" not in beside
    with resolved.store.signed_in() as connection:
        look = "SELECT count(*) FROM audit WHERE action = 'person.show' AND details->>'identity' = :id"
        assert connection.scalar(text(look), {"id": found[0]}) == 2  # its page, and beside
    assert client.get(f"/person/{resolved.model.id:032}/beside").status_code in (400, 422)


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


def street(*people: int) -> bytes:
    """A picture with people at these places."""
    frame = np.full((120, 200, 3), 90, np.uint8)
    for left in people:
        cv2.rectangle(frame, (left, 30), (left + 29, 99), RED, -1)
    return cv2.imencode(".png", frame)[1].tobytes()


def test_one_is_chosen_in_each_picture_that_shows_several(client: TestClient, resolved: Town) -> None:
    pictures = (street(20, 150), street(20), street(20, 90, 160))
    console(client).searches._detector = RedDetector()
    try:
        files = [("upload", (f"{n}.png", one)) for n, one in enumerate(pictures)]
        page = client.post("/search", data=form(client) | {"wears": ["no hat"]}, files=files).text
    finally:
        console(client).searches._detector = None
    assert (len(offered(page, "chosen")), len(hidden(page, "chosen")), len(hidden(page, "group"))) == (2, 1, 1)
    asked = {name: hidden(page, name) for name in ("group", "wears")}
    chosen = [*hidden(page, "chosen"), offered(page, "chosen")[0]]
    page = client.post("/search", data=form(client) | asked | {"chosen": chosen}).text
    assert (len(offered(page, "chosen")), hidden(page, "chosen"), hidden(page, "group")) == (3, chosen, [])
    chosen += offered(page, "chosen")[1:2]
    page = client.post("/search", data=form(client) | {"chosen": chosen, "wears": ["no hat"]}).text
    assert len(hidden(page, "probe")) == 3 and "Asked for: no hat" in page


def test_one_of_several_people_is_chosen_and_the_others_are_not_kept(client: TestClient, resolved: Town) -> None:
    sent = {"upload": ("street.png", street(20, 150))}
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


def test_pictures_to_choose_from_are_kept_within_bounds(client: TestClient) -> None:
    visitor = console(client).visitors.find(dict(client.cookies)[COOKIE])
    assert visitor is not None
    kept = Offered(most=100)
    first = kept.keep([b"a" * 40, b"b" * 40], visitor)
    second = kept.keep([b"c" * 40], visitor)
    assert [kept.get(name, visitor) is not None for name in (*first, *second)] == [False, True, True]
    kept.chosen(first[1:], visitor)
    assert [kept.get(name, visitor) is not None for name in (*first, *second)] == [False, False, True]
    kept.forget("somebody else")
    assert kept.get(second[0], visitor)
    kept.forget(visitor.token)
    assert kept.get(second[0], visitor) is None
    old = Offered(seconds=0)
    assert old.get(old.keep([b"d"], visitor)[0], visitor) is None


def test_nobody_is_kept_of_a_picture_in_which_one_was_chosen_or_after_a_sign_out(
    client: TestClient, resolved: Town
) -> None:
    here = console(client)

    def kept() -> int:
        return len(here.searches.offered._kept._found)

    with TestClient(client.app, follow_redirects=False) as other:
        other.get(new_link("", here.visitors.key))
        before, fields = kept(), form(other)
        here.searches._detector = RedDetector()
        try:
            page = other.post("/search", data=fields, files={"upload": ("street.png", street(20, 150))}).text
        finally:
            here.searches._detector = None
        assert kept() == before + 2
        found = other.post("/search", data=fields | {"chosen": offered(page, "chosen")[0]})
        assert found.status_code == 200 and kept() == before + 1  # which is shown beside the hits
        other.post("/sign-out", data={"form_key": fields["form_key"]})
    assert kept() == before


def test_who_searches_very_often_is_told_to_wait(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urban_reid.console.finding._SEARCHES", Limit(0.001, 1))
    fields = form(client)
    assert "choose a picture" in client.post("/search", data=fields).text
    assert "very often; wait" in client.post("/search", data=fields).text


def test_people_are_looked_for_only_for_whoever_may_search(as_: As) -> None:
    """From here on the home is a live one."""
    anna = as_("anna")  # signed in, and under no authorization
    frame = np.full((120, 200, 3), 90, np.uint8)
    cv2.rectangle(frame, (20, 30), (49, 99), RED, -1)
    cv2.rectangle(frame, (150, 30), (179, 99), RED, -1)
    sent = {"upload": ("street.png", cv2.imencode(".png", frame)[1].tobytes())}
    console(anna).searches._detector = RedDetector()
    (key,) = set(re.findall(r'name="form_key" value="(\w+)"', anna.get("/cases").text))
    answer = anna.post("/search", data={"unit": "d1", "reason": "case 17", "form_key": key}, files=sent)
    assert answer.status_code == 403 and "Who is it?" not in answer.text


def test_a_search_that_is_refused_keeps_no_picture_and_one_is_led_to_what_the_authorization_covers(
    as_: As, governed: Governed, resolved: Town
) -> None:
    anna = as_("anna", governed.authorized(units=("d1/s1/b1/c1", "d1/s2")))
    page = anna.get("/search").text
    (places,) = re.findall('<select name="unit">(.*?)</select>', page, re.DOTALL)
    offered_places = re.findall('value="([^"]+)"', places)
    assert "d1/s2" in offered_places and all(one.startswith("d1/s2") for one in offered_places if one != "d1/s1/b1/c1")
    assert offered_places[0] == "d1/s1/b1/c1"  # whose building is not covered
    sent = {"upload": ("person.jpg", best_picture(resolved))}
    fields = {"reason": "case 17", "form_key": hidden(page, "form_key")[0]}
    counts = [_probes(resolved)]
    period = {"from_time": "2027-01-01T00:00", "to_time": "2027-01-02T00:00"}
    for fault in ({"unit": "d1"}, {"unit": "nowhere"}, {"unit": "d1/s2", **period}):
        assert anna.post("/search", data=fields | fault, files=sent).status_code in (400, 403, 503)
        counts.append(_probes(resolved))
    assert len(set(counts)) == 1
    for unit in offered_places[:2]:
        assert anna.post("/search", data=fields | {"unit": unit}, files=sent).status_code == 200, unit


def _probes(town: Town) -> tuple[int, int]:
    """Rows and files."""
    files = [one for one in (town.store.settings.home / "crops" / "_probes").rglob("*") if one.is_file()]
    with town.store.owning() as connection:
        return connection.execute(text("SELECT count(*) FROM probe")).scalar_one(), len(files)
