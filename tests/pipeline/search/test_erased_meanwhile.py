"""Somebody is erased while the city is searched: the answer is that of the city without him, or one clear line."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from pipeline.erasure.erase import erase
from pipeline.governance.audit import Action
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.doors import check_authorized
from pipeline.search.request import request_search
from pipeline.search.search import search
from reid_core.serving.core import ReIDCore
from schemas.errors import InputError, StoreConflict
from schemas.parameters import SearchParameters, SearchResult
from tests.helpers.town import Town

_LOOK = Action.PEOPLE_SHOW


@pytest.fixture
def people(town: Town, lines: list[str]) -> list[str]:
    """Persistent ids of a resolved city, those with the most crops first."""
    town.take_in(lines[:100])
    town.resolve()
    with town.store.begin() as connection:
        query = "SELECT persistent_id::text FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key"
        return list(connection.scalars(text(query)))


def crop_of(town: Town, person: str) -> str:
    with town.store.begin() as connection:
        key: str = connection.scalar(
            text(
                "SELECT encode(c.key, 'hex') FROM identity_now i "
                "JOIN identity_member m ON m.identity_id = ANY(i.tracklets) JOIN crop c "
                "ON c.id = m.crop_id WHERE i.persistent_id::text = :person ORDER BY c.key LIMIT 1"
            ),
            {"person": person},
        )
    return key


def searched(town: Town, crop: str, meanwhile: Callable[[], object]) -> SearchResult:
    """A search during which `meanwhile` is called, after the city was read and before the hits are written."""
    asked = SearchParameters(unit="d1", reason="a test", operator="me", top=200, crop_key=crop)
    request = request_search(town.store, town.model, asked)

    def core(_: object) -> ReIDCore:
        meanwhile()
        return town.core

    return search(town.store, core, town.crops, town.model, request, asked)


def test_who_is_erased_while_the_city_is_searched_is_in_no_result(town: Town, people: list[str]) -> None:
    sought, erased, *left = people
    crop = crop_of(town, sought)
    once = [erased]

    def erase_person(persons: list[str]) -> None:
        if persons:
            erase(town.store, "identity", [persons.pop()], actor="anna", reason="a request")

    found = searched(town, crop, lambda: erase_person(once))
    assert {str(hit.identity) for hit in found.hits} == {*people} - {erased}
    assert written(town) == (len(found.hits), 1) == (found.compared, 1)

    with pytest.raises(StoreConflict, match="each of the 3 times that it was searched; search again later"):
        searched(town, crop, lambda: erase_person(left))
    with pytest.raises(InputError, match="was erased, or its crop was; ask for it anew"):
        searched(town, crop, lambda: erase(town.store, "crop", [crop], actor="anna", reason="a request"))
    hits, shown = written(town)
    assert hits < len(found.hits) and shown == 1  # of the first alone, without those that were erased since


def test_a_search_is_answered_while_others_look_at_people(town: Town, people: list[str]) -> None:
    """Each look is a row of the audit, which the next row follows."""
    found = searched(town, crop_of(town, people[0]), lambda: check_authorized(town.store, "d1", "a look", _LOOK))
    assert written(town) == (len(found.hits), 1)
    assert not verify_city(town.store).faults


def written(town: Town) -> tuple[int, int]:
    """How many hits are stored, and how many results were shown."""
    with town.store.signed_in() as connection:
        shown = connection.scalar(text("SELECT count(*) FROM audit WHERE action = 'search.show'"))
        return len(connection.execute(text("SELECT FROM search_hit")).all()), shown
