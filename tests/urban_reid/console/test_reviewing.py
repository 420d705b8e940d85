"""The page of reviews: a pair is shown, answered, undone, tried out; only for whom it is."""

import re
from collections.abc import Iterator
from html import unescape

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.governance.audit import Action, read_audit
from pipeline.review import company, in_the_way
from pipeline.review.answers import answer, undo
from pipeline.review.queue import read_queue
from schemas.review import Said
from tests.helpers.console import As, send, the
from tests.helpers.town import Town
from urban_reid.console import reviewing
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


def test_answers_come_page_by_page(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "_A_PAGE", 1)
    given: list[str] = []
    for _ in range(2):
        fields = form(client.get("/review").text)
        part = client.post("/review", data=fields | {"said": "unsure"}, headers={"x-part": "true"})
        given.insert(0, the(r'name="answer_id" value="([0-9a-f-]+)"', part.text))
    shown = client.get("/review/answers?unit=d1").text
    following = client.get(unescape(the(r'href="(/review/answers[^"]+)" rel="next"', shown))).text
    found = re.findall(r'href="/review/changed/([0-9a-f-]{36})"', shown + following)
    for answer_id in given:
        client.post("/review/undo", data={"form_key": fields["form_key"], "unit": "d1", "answer_id": answer_id})
    assert found == given


def test_the_next_pair_and_the_one_before(client: TestClient) -> None:
    first = client.get("/review").text
    there = the(r'href="([^"]+)" rel="next"', first)
    second = client.get(unescape(there)).text
    assert form(second)["left"] + form(second)["right"] != form(first)["left"] + form(first)["right"]
    back = client.get(unescape(the(r'href="([^"]+)" rel="prev"', second))).text
    assert form(back)["left"] + form(back)["right"] == form(first)["left"] + form(first)["right"]
    assert client.get("/review", params={"after": "nowhere"}).status_code == 400
    refused = client.post("/review", data=form(second) | {"said": "same", "reason": " "})
    assert refused.status_code == 400 and "Why: " in refused.text and "--reason" not in refused.text
    assert form(refused.text)["left"] == form(second)["left"]  # the pair that it is about


def test_a_script_gets_the_part_that_says_what_was_done(client: TestClient) -> None:
    fields = form(client.get("/review").text)
    part = client.post("/review", data=fields | {"said": "unsure"}, headers={"x-part": "true"})
    assert part.status_code == 200 and "not sure" in part.text and "<html" not in part.text
    answer = the(r'name="answer_id" value="([0-9a-f-]+)"', part.text)
    undone = {"form_key": fields["form_key"], "unit": "d1", "answer_id": answer}
    part = client.post("/review/undo", data=undone, headers={"x-part": "true"})
    assert "That answer is undone" in part.text and "<html" not in part.text


def test_a_second_look_is_not_told_apart(client: TestClient, resolved: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewing, "_SHARE", 1)  # each pair has one before it, as long as there are some
    with resolved.store.signed_in() as connection:
        item = read_queue(connection, "d1", "ben", most=1).items[0]
    keys = item.left.passage.key.hex(), item.right.passage.key.hex()
    given = answer(resolved.store, *keys, Said.DIFFERENT, reviewer="ben", reason="another coat", way=item.way)
    page = client.get("/review").text
    fields = form(page)
    assert {fields["left"], fields["right"]} == {*keys} and fields["way"] == "second"
    assert "another coat" not in page and "ben" not in page
    done = client.post("/review", data=fields | {"said": "same"})
    assert form(done.text)["way"] == "decision"
    shown = client.get("/review/agreement").text
    assert "ben" in shown and "<td>1</td><td>0</td>" in shown and "same person" in shown
    mine = the(r'name="answer_id" value="([0-9a-f-]+)"', done.text)
    for one in (mine, str(given.id)):
        undo(resolved.store, one, reviewer="ben", reason="a test")


def test_who_stands_in_the_way_is_parted_with_one_press(
    client: TestClient, resolved: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gates are the test's: the other passages of one side are said to be elsewhere at the time."""
    with resolved.store.signed_in() as connection:
        items = read_queue(connection, "d1", "ada", most=100).items
    wide = [
        item for item in items if item.left.passage.camera.split("/")[1:3] != item.right.passage.camera.split("/")[1:3]
    ]
    for item in wide:
        sides = {item.left.passage.name, item.right.passage.name}
        monkeypatch.setattr(
            in_the_way,
            "why_impossible",
            lambda one, other, _, sides=sides: None if {one.name, other.name} <= sides else "they were elsewhere",
        )
        keys = item.left.passage.key.hex(), item.right.passage.key.hex()
        said = answer(resolved.store, *keys, Said.SAME, reviewer="ada", reason="a coat", way=item.way)
        page = client.get("/review", params={"last": str(said.id)}).text
        if "It cannot be followed yet" in page:
            break
        undo(resolved.store, str(said.id), reviewer="ada", reason="a test")
    else:
        pytest.fail("nobody was joined with anybody below the street")
    other = the(r'name="other" value="([0-9a-f]+)"', page)
    sent = send(client, "/review", "/review/follow", answer_id=str(said.id), other=other)
    assert sent.status_code == 200 and "What it changed" in sent.text and other not in sent.text
    parted = the(r'name="answer_id" value="([0-9a-f-]+)"', client.get("/review/answers").text)
    for one in (parted, str(said.id)):
        undo(resolved.store, one, reviewer="ada", reason="a test")


def test_a_same_that_joins_many_counts_once_both_people_were_looked_at(
    client: TestClient, resolved: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given() -> int:
        with resolved.store.begin() as connection:
            return int(connection.execute(text("SELECT count(*) FROM review_answer")).scalar_one())

    with resolved.store.signed_in() as connection:
        (item,) = read_queue(connection, "d1", "somebody", most=1).items
    assert item.left.person and item.right.person
    monkeypatch.setattr(company, "MANY", 1)
    page, before = client.get("/review").text, given()
    assert 'value="same" data-key="s" data-page' in page
    fields = form(page) | {"said": "same"}
    shown = client.post("/review", data=fields)
    assert shown.status_code == 200 and "Your answer does not count yet" in shown.text
    assert f"/review/split/{item.left.person}" in shown.text and f"/review/split/{item.right.person}" in shown.text
    assert shown.text.count("<section aria-label=") == 2 and shown.text.count("<img ") >= 2
    part = client.post("/review", data=fields, headers={"X-Part": "true"})
    assert part.status_code == 400 and "look at them first" in part.text
    assert given() == before
    with resolved.store.signed_in() as connection:
        looked = [row.details["identity"] for row in read_audit(connection, action=Action.PERSON_SHOW, last=2)]
    assert {*looked} == {str(item.left.person), str(item.right.person)}
    done = client.post("/review", data=form(shown.text) | {"said": "same"})
    assert done.status_code == 200 and "You said: <b>same person</b>" in done.text and given() == before + 1
    undo(resolved.store, the(r'name="answer_id" value="([0-9a-f-]+)"', done.text), reviewer="ada", reason="a test")


def test_what_the_undo_of_an_answer_would_change_is_tried_out(client: TestClient, resolved: Town) -> None:
    fields = form(client.get("/review").text)
    said = answer(resolved.store, fields["left"], fields["right"], Said.SAME, reviewer="ada", reason="a coat")
    assert f'href="/review/undo/{said.id}"' in client.get(f"/review/changed/{said.id}").text
    shown = client.get(f"/review/undo/{said.id}")
    # Nobody has followed the answer yet: its undo changes nothing.
    assert shown.status_code == 200 and "If that answer is undone" in shown.text and "Nobody would be" in shown.text
    undo(resolved.store, str(said.id), reviewer="ada", reason="a test")
    assert "was undone before" in client.get(f"/review/undo/{said.id}").text


def test_a_form_of_another_site_answers_nothing(client: TestClient) -> None:
    fields = form(client.get("/review").text)
    assert client.post("/review", data=fields | {"said": "same", "form_key": "0"}).status_code == 403
    assert client.post("/review", data=fields | {"said": "perhaps"}).status_code == 422


def test_in_a_live_home_reviews_are_for_those_who_may_look(as_: As) -> None:
    for name in ("otto", "emil", "ada", "anna"):
        assert as_(name).get("/review").status_code == 403, name
    assert as_("anna").get("/review/agreement").status_code == 403
