"""What is said where nobody is shown, and pictures that are shown no longer than they may be."""

import base64
import re
from threading import Event
from uuid import uuid4

from sqlalchemy import text

from pipeline.governance.authorizations import revoke
from tests.helpers.console import As, send, the
from tests.helpers.governed import Governed
from tests.helpers.town import Town
from urban_reid.console.kept import Kept


def test_a_persons_page_without_an_authorization_says_what_is_missing(as_: As, resolved: Town) -> None:
    with resolved.store.begin() as connection:
        person = connection.scalar(text("SELECT persistent_id FROM identity_now LIMIT 1"))
    for page in (f"/person/{person}", f"/person/{uuid4()}", f"/review/split/{person}"):
        shown = as_("anna").get(page)
        assert shown.status_code == 403 and "needs an authorization" in shown.text
        assert "urban-reid" not in shown.text.partition("<main")[2]  # a page says what to do on pages
        assert 'href="/cases"' in shown.text
    assert "needs the role operator or supervisor" in as_("otto").get(f"/person/{person}").text


def test_an_address_of_people_without_a_place_leads_to_all_places(as_: As) -> None:
    shown = as_("anna").get("/people")
    assert shown.status_code == 200 and shown.url.path == "/"


def test_a_refused_form_says_why_where_it_stands_and_keeps_what_was_typed(as_: As) -> None:
    client = as_("anna")
    name = "case of a refused form"
    assert send(client, "/cases", "/cases", name=name, reason="first").status_code == 200
    again = send(client, "/cases", "/cases", name=name, reason="a second time")
    assert again.status_code == 400 and 'action="/cases"' in again.text
    form = again.text.partition('action="/cases"')[2]
    assert 'role="alert"' in form and "there is a case" in form
    assert f'value="{name}"' in form and 'value="a second time"' in form


def test_what_is_wrong_with_a_field_is_said_in_the_language_of_the_page(as_: As) -> None:
    client = as_("anna")
    client.headers["accept-language"] = "de"
    try:
        blank = send(client, "/cases", "/cases", name=" ", reason="first").text
        long = send(client, "/cases", "/cases", name="x" * 201, reason="first").text
        none = send(client, "/cases", "/cases", name="y", reason="").text
        white = send(client, "/cases", "/cases", name="y", reason="  ").text
    finally:
        del client.headers["accept-language"]
    assert "Name: darf nicht leer sein: es wird ins Protokoll geschrieben" in blank
    assert re.search("Name: [^<]* 200 Zeichen", long)
    for page in (none, white):
        assert "Warum: darf nicht leer sein" in page or "Warum: fehlt" in page
    assert "Warum: darf nicht leer sein" in white


def test_a_picture_that_a_browser_keeps_is_asked_for_before_it_is_shown_again(
    as_: As, governed: Governed, resolved: Town
) -> None:
    authorization = governed.authorized("case of pictures")
    client = as_("anna", authorization)
    thumbnails = client.app.state.console.thumbnails  # type: ignore[attr-defined]
    person = the(r'href="(/person/[0-9a-f-]{36})"', client.get("/people/d1").text)
    withdrawn, shown = re.findall(r'src="(/pictures/[^"]+)"', client.get(person).text)[:2]
    tags = {}
    for path in (withdrawn, shown):
        first = client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        tags[path] = {"if-none-match": first.headers["etag"]}
        again = client.get(path, headers=tags[path])
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == first.headers["etag"]
    assert tags[withdrawn] != tags[shown] and client.get(shown, headers=tags[withdrawn]).status_code == 200

    (said,) = (one for one in thumbnails._made if one == _said(withdrawn))
    of = said.decode().split(" ")
    which = "WHERE camera = %s AND captured_at = %s AND picture = decode(%s, 'hex')"
    governed.past_rules(f"UPDATE crop SET withdrawn_at = now() {which}", *of[2:])
    try:
        assert client.get(withdrawn, headers=tags[withdrawn]).status_code == 404
        assert thumbnails._drop_gone() is not None  # what is still there is looked at again
        assert said not in thumbnails._made and _said(shown) in thumbnails._made
    finally:
        governed.past_rules(f"UPDATE crop SET withdrawn_at = NULL {which}", *of[2:])

    governed.as_("ben")
    revoke(resolved.store, str(authorization), reason="found")
    governed.as_(None)
    ended = client.get(shown, headers=tags[shown], follow_redirects=False)
    assert ended.status_code == 303 and "etag" not in ended.headers


def _said(path: str) -> bytes:
    said = path.rpartition("/")[2].partition(".")[0]
    return base64.urlsafe_b64decode(said + "=" * (-len(said) % 4))


def test_what_is_kept_for_a_while_goes_without_being_asked_for() -> None:
    gone = Event()

    class Picture:
        def __del__(self) -> None:
            gone.set()

    kept: Kept[Picture] = Kept(0.01)
    kept.put("one", Picture())
    assert gone.wait(30) and kept.get("one") is None
    gone.clear()
    kept.put("two", Picture())  # the timer is started again
    assert gone.wait(30)
