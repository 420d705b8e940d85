"""What a run does while something that it needs does not answer."""

import asyncio
from collections.abc import Iterator

import pytest

from flows import work
from flows.work import Work, working
from pipeline.store import Store
from schemas.errors import CoreUnavailable, InputError, PicturesUnavailable, StoreUnavailable, UrbanReidError


@pytest.fixture
def opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    monkeypatch.setattr(work, "_PAUSES_S", (0.0,) * 5)
    with working(store.settings) as made:
        yield made


def test_what_does_not_answer_is_asked_again_and_said_once(opened: Work) -> None:
    said: list[str] = []
    opened.on_wait = said.append
    errors: list[UrbanReidError] = [
        StoreUnavailable("the database is\naway"),
        PicturesUnavailable("so are pictures"),
        CoreUnavailable("and the core"),
        StoreUnavailable("the database is away again"),
    ]

    def function(number: int) -> int:
        if errors:
            raise errors.pop(0)
        return number

    assert asyncio.run(opened.run(function, 7)) == 7
    assert said == [
        "the database is away; trying again",
        "so are pictures; trying again",
        "and the core; trying again",
    ]


def test_what_stays_away_ends_the_run_and_what_is_wrong_ends_it_at_once(opened: Work) -> None:
    calls: list[int] = []

    def away() -> None:
        calls.append(1)
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        asyncio.run(opened.run(away))
    assert len(calls) == 1 + 5

    def wrong() -> None:
        calls.append(2)
        raise InputError("wrong")

    with pytest.raises(InputError):
        asyncio.run(opened.run(wrong))
    assert calls.count(2) == 1
