"""urban-reid search-several: asks the consoles of several databases."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from schemas.settings import settings as read_settings
from tests.helpers.command_line import Run, error_of
from tests.helpers.console import on_loopback
from tests.helpers.town import Town
from urban_reid.client import Client
from urban_reid.console.visitors import new_link


@pytest.fixture
def cities(resolved: Town, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A console on loopback, under two names; a third name has no token, and two more lead nowhere."""
    with on_loopback(resolved.store) as (url, key):
        token = Client.from_link(new_link(url, key)).token
        names = {"north": url, "south": url, "east": url, "west": "http://10.0.0.1", "gone": "http://127.0.0.1:1"}
        tokens = {name: token for name in names if name != "east"} | {"wrong": token}
        monkeypatch.setenv("URBAN_REID_CITIES", json.dumps(names))
        monkeypatch.setenv("URBAN_REID_CITY_TOKENS", json.dumps(tokens))
        yield


def _audited(town: Town) -> int:
    with town.store.owning() as connection:
        found = connection.execute(
            text("SELECT count(*) FROM audit WHERE action = 'search.start' AND reason = 'case 17'")
        )
        return int(found.scalar_one())


def test_it_asks_each_city_and_states_one_list(
    resolved: Town, cities: None, run_here: Run, city_files: Path, lines: list[str]
) -> None:
    read_settings.cache_clear()
    picture = str(city_files / json.loads(lines[0])["path"])
    before = _audited(resolved)
    asked = ("search-several", "--probe", picture, "--in", "north=d1/s1", "--in", "south=d1/s2", "--reason", "case 17")
    found = json.loads(run_here(*asked, "--json").stdout)
    assert _audited(resolved) == before + 2
    assert {one["city"] for one in found["hits"]} == {"north=d1/s1", "south=d1/s2"}
    assert [one["hit"]["rank"] for one in found["hits"]] == list(range(1, len(found["hits"]) + 1))
    stated = [one["hit"]["probability"] for one in found["hits"]]
    assert stated == sorted(stated, reverse=True) and 0 < found["not_here"] < 1
    said = run_here(*asked).stdout
    assert "lead, not identification" in said and f"{found['compared']} identities were compared" in said


def test_what_it_cannot_ask_it_refuses(cities: None, run_here: Run, city_files: Path, lines: list[str]) -> None:
    read_settings.cache_clear()
    picture = str(city_files / json.loads(lines[0])["path"])

    def refusal(place: str, code: int, probe: str = picture) -> str:
        asked = ("--probe", probe, "--in", "north=d1", "--in", place, "--reason", "case 17")
        return error_of(run_here("search-several", *asked), code)

    assert "write NAME=CODE with a name of URBAN_REID_CITIES, which holds east, gone" in refusal("nowhere=d1", 2)
    assert "write NAME=CODE" in refusal("north", 2)
    assert "URBAN_REID_CITY_TOKENS has no token for east" in refusal("east=d1", 2)
    assert "not reached by https" in refusal("west=d1", 2)
    assert refusal("gone=d1", 1) == "gone: http://127.0.0.1:1 does not answer (ConnectError)"
    assert refusal("south=d9", 2).startswith("south: ")
    assert "--probe nothing.jpg: " in refusal("south=d1", 2, "nothing.jpg")
