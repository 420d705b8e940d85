"""Standing searches in the console: asked for after a search, approved by whoever saw the pictures, seen by all."""

import re

from pydantic import SecretStr
from sqlalchemy import text

from pipeline.standing.watch import Watch
from pipeline.store import embedded
from tests.helpers.console import As, send, the
from tests.helpers.homes import unbound
from tests.helpers.town import Town
from urban_reid.console.visitors import COOKIE


def _authorized(as_: As, resolved: Town, server: embedded.EmbeddedServer) -> str:
    """An approved authorization of kind standing for the days of the town's crops."""
    with unbound(server, resolved.store.settings) as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE authorization_limits SET standing = true"))
        until = connection.scalar(text("SELECT to_char(now() + interval '2 days', 'YYYY-MM-DD\"T\"HH24:MI')"))
    opened = send(as_("anna"), "/cases", "/cases", name="case 40", reason="reported by the parents")
    case = the(r'action="/cases/([0-9a-f-]{36})/ask"', opened.text)
    assert '<option value="standing">' in opened.text
    fields = {"sought": "a child", "purpose": "missing-person", "legal_basis": "law 1", "units": ["d1"]}
    times = {"from_time": "2026-01-01T00:00", "to_time": "2026-01-02T00:00", "expires": until}
    asked = send(as_("anna"), f"/cases/{case}", f"/cases/{case}/ask", **fields, **times, kind="standing")
    authorization = the(r'formaction="/authorizations/([0-9a-f-]{36})/revoke"', asked.text)
    where = f"/authorizations/{authorization}"
    shown = dict(re.findall(r'name="(crops|cameras|identities)" value="(\d+)"', as_("ben").get(where).text))
    assert ">approved<" in send(as_("ben"), where, f"{where}/approve", reason="in proportion", **shown).text
    return authorization


def test_a_standing_search_from_its_wish_to_its_leads(as_: As, resolved: Town, server: embedded.EmbeddedServer) -> None:
    authorization = _authorized(as_, resolved, server)
    anna = as_("anna", authorization)
    assert "Nobody is looked for." in anna.get("/standing").text and "/standing" not in anna.get("/").text
    person = the(r'href="(/person/[0-9a-f-]{36})"', anna.get("/people/d1").text)
    like = the(r"like=([^\"]+)\"", anna.get(person).text)
    found = send(anna, "/search", "/search", unit="d1", reason="the child", like=like)
    way = the(r'href="(/standing\?[^"]+)"', found.text).replace("&amp;", "&")
    form = anna.get(way)
    assert 'name="like"' in form.text and "d1/s1/b1/c1" not in form.text  # a camera has no likelihood
    fields = {"units": ["d1"], "bar": "0.5", "like": like}
    refused = send(anna, way, "/standing", **fields, reason="the child", to_time="2027-01-01T00:00")
    assert refused.status_code == 403 and "not within that of the authorization" in refused.text
    assert 'value="the child"' in refused.text
    # What cameras see from now on is after the period of this authorization of the past.
    assert send(anna, way, "/standing", **fields, reason="the child").status_code == 400
    token = as_("anna", authorization).cookies[COOKIE]
    with resolved.store.under(SecretStr(token)).signed_in() as connection:
        made = connection.scalar(text(_START))
        connection.execute(text(_PICTURE), {"id": made})
    where = f"/standing/{made}"
    assert "waits for approval" in anna.get(where).text and f"{where}/approve" not in anna.get(where).text
    unseen = as_("ben").get(where)
    assert "Sign in under its authorization first" in unseen.text and f'src="{where}/1"' not in unseen.text
    assert as_("ben").get(f"{where}/1").status_code == 404
    ben = as_("ben", authorization)
    assert ben.get(f"{where}/1").status_code == 404  # not before the page that is noted
    assert f'src="{where}/1"' in ben.get(where).text
    assert ben.get(f"{where}/1").headers["content-type"].startswith("image/")
    assert ">looks<" in send(ben, where, f"{where}/approve", reason="it is the child").text
    failed: list[str] = []
    assert len(Watch(resolved.store, failed.append).look(0.0)) == 1 and failed == []
    lead = the(r'href="/leads/([0-9a-f-]{36})"', as_("cleo", authorization).get(where).text)
    assert "likely</a>" not in as_("cleo", authorization).get(where).text
    assert "likely</a>" in as_("anna", authorization).get(where).text
    assert "Do both show one person?" in as_("cleo", authorization).get(f"/leads/{lead}").text
    for name, shown in (("ben", True), ("otto", True), ("anna", True), ("emil", False), ("ada", False)):
        assert ("1 person is looked for" in as_(name).get("/").text) is shown, name
        assert (as_(name).get("/standing").status_code == 200) is shown
    assert "Hits are shown to whoever" in as_("otto").get(where).text
    ended = send(as_("eve"), where, f"{where}/end", reason="found")
    assert ended.status_code == 200 and "eve" in ended.text and ">ended<" in ended.text
    listed = as_("otto").get("/standing").text
    assert "Nobody is looked for." in listed and ">Those that look no more<" in listed and where in listed
    assert where not in as_("otto").get("/standing?before=2026-01-01T00:00:00%2B00:00").text
    twice = send(as_("eve"), "/cases", f"{where}/end", reason="again")
    assert twice.status_code == 403


_START = (
    "INSERT INTO standing_search (operator, reason, units, bar, from_time, to_time) VALUES ('x', 'the child', '{d1}', "
    "0.1, '2026-01-01 06:00Z', '2026-01-01 20:00Z') RETURNING id"
)
_PICTURE = "INSERT INTO standing_picture (standing_id, crop_id) SELECT :id, min(id) FROM crop"
