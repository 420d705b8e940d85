"""What Prefect's own database says of a search goes when the person searched for is erased."""

from pathlib import Path

import pytest
from sqlalchemy import text

from flows.failures import call
from flows.search import search
from flows.work import working
from pipeline.erasure.files import prefect_database, remove_from_prefect
from pipeline.search.request import request_search
from schemas.errors import HomeError
from schemas.parameters import RequestParameters, SearchParameters
from schemas.settings import Settings
from tests.flows.test_privacy import dump, ended_runs
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town


def test_a_database_of_prefect_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    prefect_database(settings).parent.mkdir()
    prefect_database(settings).write_text("no database " * 100)
    with pytest.raises(HomeError, match=r"prefect\.db: nothing was removed from it: file is not a database"):
        remove_from_prefect(settings, {"word"})


@pytest.mark.system
def test_prefects_rows_of_a_search_go(town: Town, lines: list[str], prefect_home: Path, api: Ask) -> None:
    town.take_in(lines[:60])
    town.resolve()
    with town.store.begin() as connection:
        keys = connection.execute(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 3")).scalars().all()
    requests = []
    with working(town.store.settings):
        for key in keys:
            asked = SearchParameters(unit="d1", crop_key=key, reason="case 7", operator="anna", top=5)
            requests.append(request_search(town.store, town.model, asked))
            call(search, RequestParameters(request=requests[-1]), pytest.fail)
    ended_runs(prefect_home, ["search"])
    database = prefect_home / "prefect" / "prefect.db"
    assert all(str(request) in dump(database) for request in requests)
    assert remove_from_prefect(Settings(home=prefect_home), {str(requests[0])}) > 0
    left = dump(database)
    assert str(requests[0]) not in left and all(str(request) in left for request in requests[1:])
    assert len(api("/flow_runs/filter", {"flows": {"name": {"any_": ["search"]}}})) == 2  # the server goes on
