"""Nothing that identifies a person goes into Prefect's database, nor into any other file of Prefect's."""

import sqlite3
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from flows.failures import RunFailed, call
from flows.resolve import district
from flows.search import search
from flows.training import training
from flows.work import working
from pipeline.search.request import request_search
from pipeline.training.request import request_training
from schemas.errors import InputError
from schemas.parameters import RequestParameters, ResolveParameters, SearchParameters
from tests.helpers.town import Town
from tests.helpers.training import PARAMETERS

OPERATOR, REASON = "Zelda Quartermaine", "case 4711 of the blue notebook"


def dump(database: Path) -> str:
    """All that Prefect's database holds, as text."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return "\n".join(connection.iterdump())


def ended_runs(home: Path, names: list[str]) -> str:
    """The dump, once the last logs of the flows' runs have arrived."""
    deadline = time.monotonic() + 60
    while True:
        found = dump(home / "prefect" / "prefect.db")
        if all(f"for flow ''{name}''" in found for name in names) and found.count("Finished in state") >= 5:
            return found
        assert time.monotonic() < deadline, "the logs did not arrive"
        time.sleep(0.5)


def test_no_file_of_prefects_identifies_a_person(town: Town, lines: list[str], prefect_home: Path) -> None:
    town.take_in(lines[:80])
    with working(town.store.settings):
        call(district, ResolveParameters(unit="d1"), pytest.fail)
        with town.store.begin() as connection:
            key = connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1"))
            of_probe = connection.scalar(text("SELECT picture FROM crop ORDER BY key DESC LIMIT 1"))
        asked = SearchParameters(unit="d1", crop_key=key, reason=REASON, operator=OPERATOR, top=5)
        hits = call(search, RequestParameters(request=request_search(town.store, town.model, asked)), pytest.fail).hits
        told = PARAMETERS.model_copy(update={"operator": OPERATOR, "reason": REASON})
        call(training, RequestParameters(request=request_training(town.store, told)), pytest.fail)
        taken = told.model_copy(update={"seed": 5, "reason": f"{REASON} again"})
        with pytest.raises(InputError, match="another model is registered"):
            call(training, RequestParameters(request=request_training(town.store, taken)), pytest.fail)

        def failing(*_: object) -> Any:
            raise InputError(f"{OPERATOR} may not see crop {key}")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flows.search.answer", failing)
            with pytest.raises(InputError, match=OPERATOR):  # whoever asked is told
                call(search, RequestParameters(request=request_search(town.store, town.model, asked)), pytest.fail)
    assert hits and of_probe is not None
    ids = {UUID(str(id)) for hit in hits for crop in hit.crops for id in crop.lineage}
    needles = {OPERATOR, "Quartermaine", REASON, "blue notebook", key, *map(str, ids), *(id.hex for id in ids)}
    found = ended_runs(prefect_home, ["district", "search", "training"])
    assert not [needle for needle in needles if needle in found]
    assert "InputError" in found  # the kind of an error may be seen
    for file in (path for path in (prefect_home / "prefect").rglob("*") if path.is_file() and "/ui/" not in str(path)):
        content = file.read_bytes()
        assert not [needle for needle in needles if needle.encode() in content], file


def test_the_error_itself_is_in_no_pickle() -> None:
    import pickle

    failed = RunFailed(InputError(f"{OPERATOR} {uuid4()}"))
    assert OPERATOR not in str(failed) and OPERATOR.encode() not in pickle.dumps(failed)
