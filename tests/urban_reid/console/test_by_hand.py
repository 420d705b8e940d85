"""Taking passages out of a person, and joining two, on pages: tried out, said, undone; only for whom it is."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from tests.helpers.console import As, send, the
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.visitors import new_link

_HELD = text(
    "SELECT count(*) FROM review_answer a WHERE NOT EXISTS (SELECT FROM review_undo u WHERE u.answer_id = a.id)"
)
_LONGEST = text(
    "SELECT persistent_id::text FROM identity_now WHERE unit = 'd1' ORDER BY cardinality(tracklets) DESC LIMIT 1"
)


@pytest.fixture
def client(resolved: Town) -> Iterator[TestClient]:
    """Signed in to an open home."""
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=True) as made:
        key = made.app.state.console.visitors.key  # type: ignore[attr-defined]
        assert made.get(new_link("", key)).status_code == 200
        yield made


@pytest.fixture
def person(resolved: Town) -> str:
    """The id of the person with most passages."""
    with resolved.store.begin() as connection:
        return str(connection.scalar(_LONGEST))


def held(town: Town) -> Any:
    """How many answers count."""
    with town.store.begin() as connection:
        return connection.scalar(_HELD)


def undo(client: TestClient, page: str) -> Any:
    answer = the(r'name="answer_id" value="([0-9a-f-]+)"', page)
    return send(client, f"/review/changed/{answer}", "/review/undo", unit="d1", answer_id=answer)


def test_passages_are_taken_out_of_a_person_and_back(client: TestClient, resolved: Town, person: str) -> None:
    where = the(rf'href="(/review/split/{person})"', client.get(f"/person/{person}").text)
    passages = re.findall(r'name="taken" value="(\d+)"', client.get(where).text)
    assert len(passages) > 1
    nobody = send(client, where, where, act="say", reason="another coat")
    assert nobody.status_code == 400 and "choose the passages" in nobody.text
    assert send(client, where, where, act="say", taken=passages, reason="another coat").status_code == 400  # all
    assert send(client, where, where, act="say", taken=passages[:1], reason="").status_code == 400
    tried = send(client, where, where, act="try", taken=passages[:1])
    assert tried.status_code == 200 and "nothing was kept" in tried.text and held(resolved) == 0
    back = the(r'href="([^"]+)">Back to the choice', tried.text)
    assert f'value="{passages[0]}" checked' in client.get(back).text
    done = send(client, where, where, act="say", taken=passages[:1], reason="another coat")
    assert done.status_code == 200 and "What it changed" in done.text and held(resolved) == 1
    assert "That answer is undone" in undo(client, done.text).text and held(resolved) == 0


def test_passages_that_are_no_more_are_not_taken_out(client: TestClient, person: str) -> None:
    where = f"/review/split/{person}"
    said = send(client, where, where, act="say", taken="2000000000", reason="another coat")
    assert said.status_code == 400 and "load the page again" in said.text


def test_two_people_are_joined_and_parted_again(client: TestClient, resolved: Town) -> None:
    people = re.findall(r'href="/person/([0-9a-f-]{36})"', client.get("/people/d1").text)
    done = None
    for person in people:
        where = the(rf'href="(/review/merge/{person})"', client.get(f"/person/{person}").text)
        others = re.findall(rf'href="{where}\?other=([0-9a-f-]{{36}})"', client.get(where).text)
        assert sorted(others) == sorted(set(people) - {person})
        both = client.get(where, params={"other": others[0]}).text
        assert "Are both one person?" in both and both.count("<figure>") == 2
        done = send(client, where, where, other=others[0], act="say", reason="the red bag")
        if done.status_code == 200:  # else times and places keep them apart
            break
        assert done.status_code == 400 and "they cannot be one person" in done.text
    assert done is not None and "What it changed" in done.text and held(resolved) == 1
    assert undo(client, done.text).status_code == 200 and held(resolved) == 0
    itself = send(client, f"/review/merge/{people[0]}", f"/review/merge/{people[0]}", other=people[0], act="try")
    assert itself.status_code == 400 and "same identity" in itself.text
    assert client.get(f"/review/merge/{uuid4()}").status_code == 400


def test_in_a_live_home_it_is_for_those_who_may_look(as_: As, person: str) -> None:
    for page in ("split", "merge"):
        for name in ("otto", "emil", "ada"):
            assert as_(name).get(f"/review/{page}/{person}").status_code == 403, name
        without = as_("anna").get(f"/review/{page}/{person}")  # who is not told either whether there is such a person
        assert without.status_code == 403 and "Choose or ask for one" in without.text
