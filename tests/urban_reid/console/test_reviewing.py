"""The page of reviews: a pair is shown, answered, undone, tried out; only for whom it is."""

import re
from collections.abc import Iterator
from html import unescape

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.governance.audit import Action, read_audit
from tests.helpers.console import As
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.visitors import new_link


@pytest.fixture
def client(resolved: Town) -> Iterator[TestClient]:
    """Signed in to an open home."""
    with TestClient(make_app(resolved.store, ["testserver"]), follow_redirects=True) as made:
        key = made.app.state.console.visitors.key  # type: ignore[attr-defined]
        assert made.get(new_link("", key)).status_code == 200
        yield made


def form(page: str) -> dict[str, str]:
    """The fields of the form that answers."""
    inside = page.partition('action="/review"')[2].partition("</form>")[0]
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)"[^>]* value="([^"]*)"', inside)}


def test_a_pair_is_answered_and_the_answer_undone(client: TestClient, resolved: Town) -> None:
    page = client.get("/review").text
    assert page.count("<figure>") == 2 and "Do both show one person?" in page
    assert all(f'data-key="{key}"' in page for key in "jsdu")
    fields = form(page)
    assert "%" not in page and "probab" not in page  # nothing that says what to answer
    answered = client.post("/review", data=fields | {"said": "different"})
    assert answered.status_code == 200 and "another person" in answered.text
    assert form(answered.text)["left"] + form(answered.text)["right"] != fields["left"] + fields["right"]
    (answer,) = re.findall(r'name="answer_id" value="([0-9a-f-]+)"', answered.text)
    assert "not followed yet" in client.get(f"/review/changed/{answer}").text
    undone = client.post("/review/undo", data={"form_key": fields["form_key"], "unit": "d1", "answer_id": answer})
    assert undone.status_code == 200
    assert "undone by" in client.get("/review/answers").text
    with resolved.store.signed_in() as connection:
        actions = {row.action for row in read_audit(connection)}
    assert {Action.REVIEW_ANSWER, Action.REVIEW_SHOW, Action.REVIEW_UNDO} <= actions


def test_what_an_answer_would_change_is_tried_out_and_not_kept(client: TestClient, resolved: Town) -> None:
    fields = form(client.get("/review").text)
    asked = {"left": fields["left"], "right": fields["right"], "said": "same", "unit": "d1"}
    shown = client.get("/review/try", params=asked)
    assert shown.status_code == 200 and "Joined" in shown.text and "nothing was kept" in shown.text
    with resolved.store.begin() as connection:
        query = (
            "SELECT count(*) FROM review_answer a WHERE NOT EXISTS (SELECT FROM review_undo u WHERE answer_id = a.id)"
        )
        assert connection.execute(text(query)).scalar_one() == 0
    assert form(client.get("/review").text) == fields


def test_a_form_of_another_site_answers_nothing(client: TestClient) -> None:
    fields = form(client.get("/review").text)
    assert client.post("/review", data=fields | {"said": "same", "form_key": "0"}).status_code == 403
    assert client.post("/review", data=fields | {"said": "perhaps"}).status_code == 422


def test_in_a_live_home_reviews_are_for_those_who_may_look(as_: As) -> None:
    for name in ("otto", "emil", "ada", "anna"):
        assert as_(name).get("/review").status_code == 403, name
