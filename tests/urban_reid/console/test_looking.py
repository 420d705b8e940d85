"""What is said where nobody is shown."""

import re
from uuid import uuid4

from sqlalchemy import text

from tests.helpers.console import As, send
from tests.helpers.town import Town


def test_a_persons_page_without_an_authorization_says_what_is_missing(as_: As, resolved: Town) -> None:
    with resolved.store.begin() as connection:
        person = connection.scalar(text("SELECT persistent_id FROM identity_now LIMIT 1"))
    for page in (f"/person/{person}", f"/person/{uuid4()}", f"/review/split/{person}"):
        shown = as_("anna").get(page)
        assert shown.status_code == 403 and "needs an authorization" in shown.text
        assert "urban-reid" not in shown.text.partition("<main")[2]  # a page says what to do on pages
        assert 'href="/cases"' in shown.text
    assert "needs the role operator or supervisor" in as_("otto").get(f"/person/{person}").text


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
