"""A city through PgBouncer with one server connection, of which no thread may want two: decisions, a search, a sign-in
are those of a city without it.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.backup import backup
from pipeline.city.decision_digest import decision_digest
from pipeline.governance import passwords
from pipeline.governance.sessions import current_session, sign_in, sign_out
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.search.answer import answer
from pipeline.search.request import request_search
from pipeline.store import Store, embedded
from pipeline.store.session_file import keep_token
from schemas.parameters import SearchParameters, SearchResult
from schemas.settings import Settings
from tests.helpers.homes import fresh_settings, unbound
from tests.helpers.pool import connections, pooled
from tests.helpers.town import Town

pytestmark = pytest.mark.system

POOL = 1


def _searched(town: Town) -> SearchResult:
    with town.store.begin() as connection:
        key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1"))
    asked = SearchParameters(unit="d1", crop_key=key, reason="case 17", operator="me", top=3)
    request = request_search(town.store, town.model, asked)
    return answer(town.store, lambda _: town.core, town.crops, request).result


def test_a_city_through_a_pool(
    server: embedded.EmbeddedServer,
    settings: Settings,
    city_files: Path,
    model_folder: Path,
    lines: list[str],
    tmp_path: Path,
) -> None:
    with fresh_settings(server) as plain, Store.open(plain) as store:
        town = Town(store, city_files, model_folder)
        town.take_in(lines[:60])
        town.resolve()
        expected = _searched(town)
        with store.begin() as connection:
            digest = decision_digest(connection, "d1")
    most = 0
    with pooled(settings, POOL) as through, Store.open(through, "pooled") as store:
        town = Town(store, city_files, model_folder)
        town.take_in(lines[:60])
        units = units_within(store, "d1")
        association = store.settings.association

        def resolve(code: str) -> int:
            if code.count("/") == 3:
                embed_camera(store, town.core, town.crops, town.model, code)
            resolve_unit(store, town.core, town.model, code, settings=association)
            return len(connections(through))

        with ThreadPoolExecutor(6) as threads:  # levels one after the other, units of one at the same time
            for depth in (3, 2, 1, 0):
                most = max([most, *threads.map(resolve, [code for code in units if code.count("/") == depth])])
        found = _searched(town)
        with store.begin() as connection:
            assert decision_digest(connection, "d1") == digest
        assert [hit.probability for hit in found.hits] == [hit.probability for hit in expected.hits]
        assert [hit.crops[0].key for hit in found.hits] == [hit.crops[0].key for hit in expected.hits]
        assert found.not_here == expected.not_here
        _sign_in_and_out(server, store)
        assert backup(through, tmp_path / "backup").manifest.decision_digest
        assert len(connections(through)) <= POOL
    assert most <= POOL + 6  # the pool's, and one for each unit that is locked


def _sign_in_and_out(server: embedded.EmbeddedServer, store: Store) -> None:
    with unbound(
        server, store.settings.model_copy(update={"database_url": store.settings.database_direct_url})
    ) as rows:
        rows.execute(
            text("INSERT INTO account (name, password) VALUES ('ada', :password)"),
            {"password": passwords.new_password("a long password", "ada")},
        )
        rows.execute(
            text(
                "INSERT INTO account_role (account_id, role, granted_by, from_time) "
                "SELECT id, 'administrator', 'ada', now() - interval '1 hour' FROM account"
            )
        )
    token, session = sign_in(store, "ada", "a long password")
    assert session.account == "ada" and current_session(store) is None
    keep_token(store.settings.home, token)
    found = current_session(store)
    assert found is not None and found.hash == session.hash
    sign_out(store)
    assert current_session(store) is None
