"""The search process: answers written requests on a socket of the home, and whose request it may be."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from pipeline.search.answer import Answer, answer
from pipeline.search.client import SESSION, AnswerMessage, ask_process, socket_path, stated_error
from pipeline.search.index import all_vectors
from pipeline.search.request import request_search
from pipeline.search.service import Searches, application
from pipeline.store import embedded
from pipeline.store.session_file import session_token
from schemas.errors import InputError, NotAllowed, StoreError
from schemas.parameters import SearchParameters
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town

WITHIN_S = 120.0


def asked(town: Town, **parameters: Any) -> UUID:
    with town.store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1"))
    usual = {"unit": "d1", "crop_key": key, "reason": "case 17", "operator": "me", "top": 3}
    return request_search(town.store, town.model, SearchParameters.model_validate(usual | parameters))


def test_it_answers_once_what_was_asked_for(resolved: Town) -> None:
    searches = Searches(resolved.store)
    searches.warm()
    assert set(all_vectors(searches.index)) == {(resolved.model.id, "d1")}
    client = TestClient(application(searches))
    request = asked(resolved)
    answered = AnswerMessage.model_validate_json(client.post(f"/requests/{request}").content)
    plain = answer(resolved.store, lambda _: resolved.core, resolved.crops, asked(resolved))
    assert answered.request == request and answered.result == plain.result and answered.result.hits
    for wrong, message in ((request, "was answered at"), (uuid4(), "no search was asked for as")):
        refused = client.post(f"/requests/{wrong}")
        assert refused.status_code == 400
        assert refused.json()["error"] == "InputError" and message in refused.json()["message"]
    passed_on = stated_error(refused.status_code, refused.content)
    assert (type(passed_on), passed_on.do) == (InputError, "`urban-reid search` writes a request")
    assert passed_on.fact.startswith("no search was asked for as") and "urban-reid" not in passed_on.fact


def test_a_session_gets_answers_to_its_accounts_requests(
    town: Town, lines: list[str], server: embedded.EmbeddedServer
) -> None:
    town.take_in(lines[:40])
    town.resolve()
    governed = Governed(town.store, superuser_of(server, town.store.settings))
    first, second = (governed.authorized(f"case {number}") for number in (1, 2))
    searches = Searches(town.store)
    governed.as_("anna", first)
    request, later, revoked = asked(town), asked(town), asked(town)
    token = session_token(town.store.settings)
    for authorization in (second, first):  # of the same case she may verify a lead, and sees no figure before
        governed.as_("cleo", authorization)
        with pytest.raises(InputError, match="no search was asked for as"):
            searches.answer(request, session_token(town.store.settings))
    governed.as_(None)
    client = TestClient(application(searches))
    answered = client.post(f"/requests/{request}", headers={SESSION: token})
    assert answered.status_code == 200 and answered.json()["result"]["hits"]
    assert searches.answer(later).result.hits  # a flow's run has no session; the request is anna's
    governed.past_rules("UPDATE session SET ended_at = now() WHERE ended_at IS NULL")
    for of in (token, None):
        with pytest.raises((InputError, NotAllowed)):
            searches.answer(revoked, of)
    assert governed.sql("SELECT count(*) FROM search_hit WHERE request_id = %s", str(revoked)) == [(0,)]


def test_sql_of_the_program_searches_with_no_crop_that_its_session_does_not_see(
    town: Town, lines: list[str], server: embedded.EmbeddedServer
) -> None:
    town.take_in(lines[:40])
    governed = Governed(town.store, superuser_of(server, town.store.settings))
    whole, narrow = governed.authorized("case 1"), governed.authorized("case 2", units=("d1/s1/b1",))
    with town.store.begin() as connection:
        query = text("SELECT min(id) FROM crop GROUP BY starts_with(camera, 'd1/s1/b1/') ORDER BY 1")
        ids = connection.scalars(query).all()
    governed.as_("anna", whole)
    other = asked(town)
    governed.as_("anna", narrow)
    with town.store.signed_in() as connection:
        seen = set(connection.scalars(text("SELECT id FROM crop WHERE id = ANY(:ids)"), {"ids": ids}))
    (inside,), (outside,) = seen, {*ids} - seen
    ask = text(
        "INSERT INTO search_request (operator, reason, unit, from_time, to_time, crop_id, top, model_id) "
        "SELECT 'anna', 'no', 'd1/s1/b1', '2026-01-01Z', '2026-01-02Z', :crop, 3, :model RETURNING id"
    )
    add = text("INSERT INTO search_example (request_id, crop_id, is_person) VALUES (:request, :crop, true)")
    with town.store.signed_in() as connection:
        own = connection.scalar(ask, {"crop": inside, "model": town.model.id})
    with pytest.raises(StoreError, match="row-level security"), town.store.signed_in() as connection:
        connection.execute(ask, {"crop": outside, "model": town.model.id})
    with pytest.raises(StoreError, match="row-level security"), town.store.signed_in() as connection:
        connection.execute(add, {"request": own, "crop": outside})
    with pytest.raises(NotAllowed, match="by the one who asks"), town.store.signed_in() as connection:
        connection.execute(add, {"request": other, "crop": inside})  # asked for under another authorization
    with town.store.signed_in() as connection:
        connection.execute(add, {"request": own, "crop": inside})


@contextmanager
def process(town: Town) -> Iterator[subprocess.Popen[str]]:
    settings = town.store.settings
    variables = os.environ | {
        "URBAN_REID_HOME": str(settings.home),
        "URBAN_REID_DATABASE_URL": settings.database_url or "",
    }
    command = [sys.executable, "-P", "-m", "pipeline.search.service"]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def wait_for(ask: Callable[[], Answer | None], started: subprocess.Popen[str]) -> Answer:
    give_up_at = time.monotonic() + WITHIN_S
    while (found := ask()) is None:
        assert started.poll() is None and time.monotonic() < give_up_at
        time.sleep(0.05)
    return found


@pytest.mark.system
def test_the_process_serves_its_home_alone(town: Town, lines: list[str]) -> None:
    town.take_in(lines[:40])
    town.resolve()
    settings = town.store.settings
    assert ask_process(settings, asked(town)) is None
    with process(town) as started:
        request = asked(town)
        found = wait_for(lambda: ask_process(settings, request), started)
        assert found.result.hits
        assert socket_path(settings).stat().st_mode & 0o777 == 0o600
        with pytest.raises(InputError, match="no search was asked for as"):
            ask_process(settings, uuid4())
        with process(town) as second:
            said = second.communicate(timeout=WITHIN_S)[1]
            assert second.returncode == 1 and said.endswith("a search process serves this home already\n")
        started.kill()
        started.wait()
    assert socket_path(settings).exists()  # a killed process leaves it
    assert ask_process(settings, asked(town)) is None
