"""A case in the console: asked for, approved by another, searched, and a lead confirmed by two people."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from tests.helpers.console import As, send, the
from tests.helpers.governed import Governed
from tests.helpers.town import Town


def test_a_case_from_its_opening_to_a_confirmed_lead(as_: As, resolved: Town) -> None:
    opened = send(as_("anna"), "/cases", "/cases", name="case 17", reason="reported by the parents")
    case = the(r'action="/cases/([0-9a-f-]{36})/ask"', opened.text)
    wanted = {"sought": "a child", "purpose": "missing-person", "legal_basis": "law 1", "units": ["d1"]}
    period = {"from_time": "2026-01-01T00:00", "to_time": "2026-01-02T00:00"}
    with resolved.store.begin() as connection:
        until = connection.scalar(text("SELECT to_char(now() + interval '2 days', 'YYYY-MM-DD\"T\"HH24:MI')"))
    asked = send(as_("anna"), f"/cases/{case}", f"/cases/{case}/ask", **wanted, **period, expires=until)
    authorization = the(r'formaction="/authorizations/([0-9a-f-]{36})/revoke"', asked.text)
    assert ">waits for approval<" in asked.text and "/approve" not in asked.text  # which is another one's
    where = f"/authorizations/{authorization}"
    asked = as_("ben").get(where)
    assert f'formaction="{where}/approve"' in asked.text
    shown = {name: the(rf'name="{name}" value="(\d+)"', asked.text) for name in ("crops", "cameras", "identities")}
    assert int(shown["crops"]) > 0
    own = send(as_("anna"), where, f"{where}/approve", reason="I trust myself", **shown)
    assert own.status_code == 403 and 'role="alert"' in own.text
    assert "<h1>Sign in</h1>" in as_("anna", authorization).get("/people/d1").text
    approved = send(as_("ben"), where, f"{where}/approve", reason="in proportion", **shown)
    assert approved.status_code == 200 and ">approved<" in approved.text and "ben" in approved.text
    under = f'href="/sign-in?authorization={authorization}&amp;to='
    assert under in as_("anna").get(f"/cases/{case}").text and under not in as_("otto").get(f"/cases/{case}").text

    anna = as_("anna", authorization)
    people = anna.get("/people/d1")
    person = the(r'href="(/person/[0-9a-f-]{36})"', people.text)
    like = the(r"like=([^\"]+)\"", anna.get(person).text)
    found = send(anna, "/search", "/search", unit="d1", reason="the child", like=like)
    assert found.status_code == 200 and "leads</h2>" in found.text
    assert send(anna, "/search", "/search", unit="d1", reason="no", like="x.y").status_code == 400

    watched = anna.get("/cameras/d1/s1/b1/c1/picture")  # of now, which is the kind standing
    assert watched.status_code == 403 and "not within the period" in watched.text

    own = anna.get("/leads").text
    assert "You asked or searched in this case" in own and "Look at the next one" not in own
    lead = the(r'href="/leads/([0-9a-f-]{36})">Look at the next one', as_("cleo", authorization).get("/leads").text)
    own = as_("anna", authorization).get(f"/leads/{lead}").text
    assert "You asked or searched in this case" in own and 'name="same"' not in own
    for name, status in (("cleo", 403), ("anna", 200)):  # whoever confirms gets no figure elsewhere either
        client = as_(name, authorization)
        left, right = re.findall(r'src="/pictures/([^"]+)"', client.get(person).text)[:2]
        assert client.get("/compare", params={"left": left, "right": right}).status_code == status
    early = as_("cleo", authorization).get(f"/leads/{lead}/sought")
    assert early.status_code == 400  # not before the page that is noted
    for number, name in enumerate(("cleo", "dora")):
        client = as_(name, authorization)
        page = client.get(f"/leads/{lead}")
        assert "likely" not in page.text and "distance" not in page.text
        for side in ("sought", "found"):
            picture = client.get(f"/leads/{lead}/{side}")
            assert picture.headers["content-type"].startswith("image/") and len(picture.content) > 100
        answered = send(client, f"/leads/{lead}", f"/leads/{lead}", same="true", reason="coat")
        assert (">confirmed<" in answered.text) is (number == 1), answered.text
        assert f'href="/leads/{lead}">Look at the next one' not in answered.text  # but another
    twice = send(as_("eve", authorization), "/leads", f"/leads/{lead}", same="false", reason="late")
    assert twice.status_code in (400, 403)


def _asked(as_: As, name: str, **changed: object) -> tuple[str, str]:
    """A new case of anna's, and what she asks for in it: the paths of their pages."""
    opened = send(as_("anna"), "/cases", "/cases", name=name, reason="reported by the parents")
    case = "/cases/" + the(r'action="/cases/([0-9a-f-]{36})/ask"', opened.text)
    fields = {"sought": "a child", "purpose": "missing-person", "legal_basis": "law 1", "units": ["d1"]}
    until = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}"
    times = {"from_time": "2026-01-01T00:00", "to_time": "2026-01-02T00:00", "expires": until}
    asked = send(as_("anna"), case, f"{case}/ask", **fields, **times, **changed)
    return case, the(r'formaction="(/authorizations/[0-9a-f-]{36})/revoke"', asked.text)


def test_a_case_is_closed_with_its_authorizations(as_: As, governed: Governed) -> None:
    case, authorization = _asked(as_, "case 30")
    assert "Close the case" in as_("eve").get(case).text and "Close the case" not in as_("otto").get(case).text
    blank = send(as_("anna"), case, f"{case}/close", reason=" ")
    assert blank.status_code == 422 and "Why: may not be blank" in blank.text and ">open</p>" in blank.text
    closed = send(as_("anna"), case, f"{case}/close", reason="the child is found")
    assert closed.status_code == 200 and ">closed</p>" in closed.text and "Close the case" not in closed.text
    assert ">ended<" in as_("anna").get(authorization).text
    noted = governed.sql("SELECT actor FROM audit WHERE action = 'case.close' AND reason = 'the child is found'")
    assert noted == [("anna",)]
    assert "is closed" in send(as_("anna"), "/cases", f"{case}/close", reason="again").text


def test_under_urgent_use_one_signs_in_at_once(as_: As, governed: Governed) -> None:
    opened = send(as_("anna"), "/cases", "/cases", name="case 31", reason="reported by the parents")
    assert '<option value="urgent">' not in opened.text
    governed.past_rules("UPDATE authorization_limits SET urgent = true")
    try:
        case, authorization = _asked(as_, "case 32", kind="urgent")
        assert '<option value="urgent">' in as_("anna").get(case).text
        way = f'href="/sign-in?authorization={authorization.rpartition("/")[2]}&amp;to='
        for page in (case, authorization):
            shown = as_("anna").get(page).text
            assert "waits for approval" in shown and f'{way}{page}"' in shown, page
        assert as_("anna", authorization.rpartition("/")[2]).get("/people/d1").status_code == 200
        late = "UPDATE case_authorization SET asked_at = now() - interval '49 hours' WHERE kind = 'urgent'"
        governed.past_rules(late)
        assert way not in as_("anna").get(authorization).text
    finally:
        governed.past_rules("UPDATE authorization_limits SET urgent = false")


def test_cases_come_page_by_page_the_newest_first(as_: As, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urban_reid.console.casework._A_PAGE", 2)
    client, names = as_("anna"), [f"paged {n}" for n in range(5)]
    for name in names:
        send(client, "/cases", "/cases", name=name, reason="reported")
    found: list[str] = []
    path = "/cases"
    while len(found) < 5:
        shown = client.get(path).text
        here = re.findall(r'<th scope="row"><a href="/cases/[0-9a-f-]{36}" lang="">([^<]+)<', shown)
        assert len(here) == 2
        found += here
        path = the(r'href="(/cases\?before=[0-9a-f-]{36})" rel="next"', shown)
    assert found[:5] == names[::-1]


def test_a_time_that_is_none_is_said(as_: As) -> None:
    opened = send(as_("anna"), "/cases", "/cases", name="case 18", reason="reported")
    case = the(r'action="/cases/([0-9a-f-]{36})/ask"', opened.text)
    fields = {"sought": "a child", "purpose": "missing-person", "legal_basis": "law 1", "units": ["d1"]}
    times = {"from_time": "yesterday", "to_time": "2026-01-02T00:00", "expires": "2026-01-02T00:00"}
    said = send(as_("anna"), f"/cases/{case}", f"/cases/{case}/ask", **fields, **times)
    assert said.status_code == 400 and "is no time" in said.text


def test_who_has_no_part_in_cases_is_told(as_: As) -> None:
    assert as_("emil").get("/leads").status_code == 403
    opened = send(as_("otto"), "/cases", "/cases", name="case 19", reason="I am an auditor")
    assert opened.status_code == 403


def test_whoever_has_no_authorization_is_led_to_one(as_: As) -> None:
    for path in ("/leads", "/people/d1", "/review"):
        refused = as_("anna").get(path)
        assert refused.status_code == 403
        assert "aria-current" in refused.text or 'href="/cases">Cases</a>' in refused.text  # the menu stays
        assert 'href="/cases">Choose or ask for one</a>' in refused.text
    assert "You see no people yet" in as_("anna").get("/").text
    assert "Choose or ask for one" not in as_("emil").get("/people/d1").text


def test_the_form_for_an_authorization_says_its_bounds_and_is_for_those_who_may_ask(as_: As) -> None:
    opened = send(as_("anna"), "/cases", "/cases", name="case 19", reason="reported")
    assert "at most 168 hours long" in opened.text
    case = the(r'action="/cases/([0-9a-f-]{36})/ask"', opened.text)
    fields = {"sought": "a child", "purpose": "missing-person", "legal_basis": "law 1", "units": ["d1"]}
    until = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}"
    times = {"from_time": "2026-01-01T00:00", "to_time": "2026-02-01T00:00", "expires": until}
    said = send(as_("anna"), f"/cases/{case}", f"/cases/{case}/ask", **fields, **times)
    assert said.status_code == 403 and "Choose or ask for one" not in said.text  # which would not help
    assert "Ask for an authorization" not in as_("otto").get(f"/cases/{case}").text
    assert "Open a case" not in as_("otto").get("/cases").text


def test_places_lead_to_people_only_for_those_who_may_ever_look_at_them(as_: As) -> None:
    assert 'href="/people/d1"' in as_("anna").get("/").text
    for name in ("emil", "otto", "ada"):
        shown = as_(name).get("/").text
        assert "/people/" not in shown and "Places" in shown, name
