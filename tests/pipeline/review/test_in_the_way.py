"""An answer that a lower level's join keeps from being followed: who stands in the way is told, and parted."""

from datetime import UTC, datetime

import pytest

from pipeline.review.answers import give, hindrances, plan_follow, undo
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.errors import InputError
from schemas.review import Said
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.thin_town import ThinTown
from tests.pipeline.review.test_answers import SAME, digest, groups, keys, lasting, say

#: The first building has 0 and 1 as one; 1 was there while 2, who looks otherwise, was at the second building.
HELD = (("c1", 0, 0.0), ("c2", 200, 3.0), ("b2/c1", 200.5, 80.0))
#: Each building has two as one; the two that were seen at the same time are not those that are answered about.
BOTH = (("c1", 0, 0.0), ("c2", 200, 3.0), ("b2/c1", 200.5, 83.0), ("b2/c1", 400, 80.0))


def names(town: ThinTown, answer: object) -> list[tuple[int, int, str, bool]]:
    """Who stands in the way: number of the answer's passage, of the other one, the unit, whether that is certain."""
    of = {bytes.fromhex(key): number for number, key in enumerate(keys(town))}
    found = hindrances(town.store, str(answer)).found
    return [(of[one.held.key], of[one.other.key], one.unit, one.is_certain) for one in found]


def test_who_stands_in_the_way_is_told_and_parted_in_one_step(store: Store) -> None:
    town = lasting(store, *HELD)
    assert groups(town) == {frozenset({0, 1}), frozenset({2})}
    before = digest(town)
    said = say(town, 0, 2, SAME)
    town.resolve()
    assert groups(town) == {frozenset({0, 1}), frozenset({2})}  # the building's join is in the way
    assert names(town, said.id) == [(0, 1, "d1/s1/b1", True)]
    (hindrance,) = hindrances(store, str(said.id)).found
    assert hindrance.why == "they were at the same time before d1/s1/b1/c2 and d1/s1/b2/c1"
    plan = plan_follow(store, str(said.id)[:8])
    assert plan.said is Said.DIFFERENT and len(plan.pairs) == 1
    parted = give(store, plan, reviewer="anna", reason="stands in the way")
    assert not hindrances(store, str(said.id))
    town.resolve()
    assert groups(town) == {frozenset({0, 2}), frozenset({1})}
    for one in (said, parted):
        undo(store, str(one.id), reviewer="anna", reason="a test")
    town.resolve()
    assert digest(town) == before and not hindrances(store, str(said.id))


def test_where_one_of_two_joins_is_wrong_a_person_says_which(store: Store) -> None:
    town = lasting(store, *BOTH)
    assert groups(town) == {frozenset({0, 1}), frozenset({2, 3})}
    said = say(town, 0, 3, SAME)
    town.resolve()
    assert names(town, said.id) == [(0, 1, "d1/s1/b1", False), (3, 2, "d1/s1/b2", False)]
    with pytest.raises(InputError, match="one of several joins"):
        plan_follow(store, str(said.id))
    with pytest.raises(InputError, match="no such passage stands in the way"):
        plan_follow(store, str(said.id), keys(town)[3])
    give(store, plan_follow(store, str(said.id), keys(town)[2]), reviewer="anna", reason="another coat")
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 3}), frozenset({2})}
    assert not hindrances(store, str(said.id))


def test_nothing_stands_in_the_way_of_what_is_followed_or_said_otherwise(store: Store) -> None:
    town = lasting(store, ("c1", 0, 0.0), ("c2", 200, 80.0), ("b2/c1", 400, 40.0))
    for said in (say(town, 0, 2, SAME), say(town, 1, 2, Said.UNSURE), say(town, 0, 1, Said.DIFFERENT)):
        assert not hindrances(store, str(said.id))
    with pytest.raises(InputError, match="no such passage"):
        plan_follow(store, str(said.id))


def test_who_may_not_be_seen_is_counted_and_not_told(server: EmbeddedServer, store: Store) -> None:
    """1 stands in the way, and was seen before the authorized time."""
    town = lasting(store, ("c2", 200, 3.0), ("b2/c1", 201.5, 80.0), ("c1", 500, 0.0))
    assert groups(town) == {frozenset({0, 2}), frozenset({1})}
    said = say(town, 1, 2, SAME)
    assert names(town, said.id) == [(2, 0, "d1/s1/b1", True)]
    people = Governed(store, superuser_of(server, store.settings))
    after = datetime(2026, 1, 1, 0, 3, 23, 500_000, tzinfo=UTC)
    people.as_("anna", people.authorized(from_time=after))
    found = hindrances(store, str(said.id))
    assert found and not found.found and found.hidden == 1
