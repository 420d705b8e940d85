"""An answer to a request of access: the searches of every case that showed the person, and what it leaves out."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from pipeline.erasure.subject import Subject, write_subject
from pipeline.search.request import read_request, request_search
from pipeline.search.search import search
from pipeline.store import embedded
from schemas.errors import NotAllowed
from schemas.parameters import SearchParameters
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town

SUBJECT = "SELECT count(*) FROM searches_of_subject(ARRAY[CAST(:person AS uuid)])"


@pytest.fixture(scope="module")
def governed(server: embedded.EmbeddedServer, resolved: Town) -> Iterator[Governed]:
    yield Governed(resolved.store, superuser_of(server, resolved.store.settings))


@pytest.fixture(scope="module")
def person(governed: Governed, resolved: Town) -> UUID:
    """Whom a search of another case found first."""
    store = resolved.store
    governed.as_("anna", governed.authorized("a search"))
    with store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY captured_at, key LIMIT 1"))
    asked = SearchParameters(unit="d1", crop_key=key, reason="a child is missed", operator="me", top=3)
    request = request_search(store, resolved.model, asked)
    governed.as_(None)
    parameters = read_request(store, request).parameters
    search(store, lambda _: resolved.core, resolved.crops, resolved.model, request, parameters)
    ((found,),) = governed.sql(
        "SELECT i.persistent_id::text FROM search_hit h JOIN identity i ON i.id = h.identity_id "
        "WHERE h.request_id = %s AND h.rank = 1",
        str(request),
    )
    return UUID(found)


def answer(town: Town, person: UUID, folder: Path) -> tuple[Subject, dict[str, Any], str]:
    done = write_subject(town.store, town.crops, [str(person)], folder, reason="request 12")
    return done, json.loads((folder / "subject.json").read_text()), (folder / "subject.md").read_text()


def test_an_answer_lists_the_searches_of_another_case(
    governed: Governed, resolved: Town, person: UUID, tmp_path: Path
) -> None:
    governed.as_("anna", governed.authorized("request 12", kind="subject"))
    done, said, page = answer(resolved, person, tmp_path / "answer")
    assert done.searches == len(said["searches"]) >= 1
    (first,) = (one for one in said["searches"] if one["rank"] == 1)
    assert set(first) == {"time", "unit", "rank", "probability"} and first["unit"] == "d1"
    assert "| d1 | 1 |" in page and "a child is missed" not in page and "anna" not in page
    assert said["covered"][0]["sightings_left_out"] == 0


def test_an_answer_says_what_the_authorization_leaves_out(
    governed: Governed, resolved: Town, person: UUID, tmp_path: Path
) -> None:
    times = (
        "SELECT c.captured_at FROM identity_now n CROSS JOIN unnest(n.tracklets) AS t (id) JOIN identity_member m "
        "ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id WHERE n.persistent_id = %s ORDER BY 1"
    )
    seen = [at for (at,) in governed.sql(times, str(person))]
    start, end = seen[0] - timedelta(hours=1), seen[0] + timedelta(microseconds=1)
    governed.as_("anna", governed.authorized("request 13", kind="subject", from_time=start, to_time=end))
    done, said, page = answer(resolved, person, tmp_path / "answer")
    left_out = len([at for at in seen if at >= end])
    assert left_out > 0 and done.crops == len(seen) - left_out
    assert said["covered"] == [
        {"units": ["d1"], "from": start.isoformat(), "to": end.isoformat(), "sightings_left_out": left_out}
    ]
    assert f"Left out are {left_out} sightings" in page and "This answer covers d1 from" in page


def test_an_answer_needs_an_authorization_of_its_kind(
    governed: Governed, resolved: Town, person: UUID, tmp_path: Path
) -> None:
    search_alone = governed.authorized("no request")
    elsewhere = governed.authorized("request 16", kind="subject", units=("d1/s1",))
    sessions = [(None, None), ("ada", None), ("anna", None), ("otto", None), ("anna", search_alone)]
    for name, authorization in (*sessions, ("anna", elsewhere)):
        governed.as_(name, authorization)
        with pytest.raises(NotAllowed, match=r"^(answering a request of access|an access request) "):
            write_subject(resolved.store, resolved.crops, [str(person)], tmp_path / "answer", reason="request 12")
        assert not (tmp_path / "answer").exists()


def test_nobody_else_asks_who_was_searched_for(governed: Governed, resolved: Town, person: UUID) -> None:
    store = resolved.store
    covered = governed.authorized("request 14", kind="subject")
    elsewhere = governed.authorized("request 15", kind="subject", units=("d1/s1/b1/c1",))
    other = governed.authorized("a case")
    for name, authorization in ((None, None), ("anna", None), ("otto", None), ("anna", other)):
        governed.as_(name, authorization)
        with pytest.raises(NotAllowed, match="answering a request of access needs "), store.signed_in() as connection:
            connection.scalar(text(SUBJECT), {"person": person})
    found = []
    for authorization in (covered, elsewhere):
        governed.as_("dora", authorization)  # who did not search herself
        with store.signed_in() as connection:
            found.append(connection.scalar(text(SUBJECT), {"person": person}))
            assert connection.scalar(text("SELECT count(*) FROM search_hit")) == 0
    assert found[0] >= 1 and found[1] == 0
