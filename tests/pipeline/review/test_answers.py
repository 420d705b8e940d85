"""Answers bind later resolves: what is said of two passages shapes identities, and its undo restores them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.erasure.absence import verify_absence
from pipeline.erasure.erase import erase
from pipeline.review.answers import Answered, answer, give, plan_merge, plan_split, undo
from pipeline.review.labels import labels
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from schemas.errors import InputError, NotAllowed
from schemas.review import Said, Way
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of
from tests.helpers.thin_town import ThinTown, looks

SAME, DIFFERENT, UNSURE = Said.SAME, Said.DIFFERENT, Said.UNSURE


def resolved(store: Store, *passages: tuple[str, float, float], rows: Sequence[int] | None = None) -> ThinTown:
    town = ThinTown(store, looks(*passages))
    town.take_in(None if rows is None else np.array(rows))
    town.resolve()
    return town


def lasting(store: Store, *passages: tuple[str, float, float]) -> ThinTown:
    """The same with passages of 3 s, which the clocks' uncertainty does not let be at two places at once."""
    crowd = looks(*(one for camera, at, angle in passages for one in ((camera, at, angle), (camera, at + 3, angle))))
    crowd.crops.track[1::2] = crowd.crops.track[::2]
    town = ThinTown(store, crowd)
    town.take_in()
    town.resolve()
    return town


def rows(town: ThinTown, sql: str, **parameters: object) -> list[Any]:
    with town.store.begin() as connection:
        return list(connection.execute(text(sql), parameters))


def digest(town: ThinTown) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection)


def keys(town: ThinTown) -> list[str]:
    """The tracklets' keys in the order of time."""
    found = rows(town, "SELECT encode(key, 'hex') AS key FROM identity_now WHERE level = 'camera' ORDER BY first_seen")
    return [row.key for row in found]


def groups(town: ThinTown, unit: str = "d1") -> set[frozenset[int]]:
    """The unit's identities as numbers of their tracklets in the order of time."""
    place = {key: number for number, key in enumerate(keys(town))}
    found = rows(
        town,
        "SELECT n.id, array_agg(encode(t.key, 'hex')) AS keys FROM identity_now n "
        "JOIN identity t ON t.id = ANY(n.tracklets) WHERE n.unit = :unit GROUP BY n.id",
        unit=unit,
    )
    return {frozenset(place[key] for key in row.keys) for row in found}


def say(town: ThinTown, left: int, right: int, said: Said, reviewer: str = "anna", way: Way = Way.PAIR) -> Answered:
    of = keys(town)
    return answer(town.store, of[left], of[right], said, reviewer=reviewer, reason="looked", way=way)


#: Two people: 0 and 2 look alike, 1 is another one, who is seen in the other building later on.
TWO = (("c1", 0, 0.0), ("c1", 100, 80.0), ("c2", 200, 4.0), ("b2/c1", 400, 84.0))


def test_same_joins_what_the_program_keeps_apart_at_every_level(store: Store) -> None:
    town = resolved(store, *TWO)
    assert groups(town) == {frozenset({0, 2}), frozenset({1, 3})}
    before = digest(town)
    said = say(town, 0, 1, SAME)
    assert said.unit == "d1/s1/b1" and digest(town) == before  # nothing changes before the next resolve
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 2, 3})}
    assert groups(town, "d1/s1/b1") == {frozenset({0, 1, 2})}
    undo(store, str(said.id)[:8], reviewer="ben", reason="a mistake")
    town.resolve()
    assert digest(town) == before


def test_different_parts_what_the_program_joins(store: Store) -> None:
    town = resolved(store, *TWO)
    before = digest(town)
    said = say(town, 2, 0, DIFFERENT)
    town.resolve()
    assert groups(town) == {frozenset({0}), frozenset({2}), frozenset({1, 3})}
    (row,) = rows(town, "SELECT d.verdict, d.answered FROM match_decision d JOIN run r ON r.id = d.run_id "
                  "WHERE r.superseded_at IS NULL AND d.answered AND r.unit = 'd1/s1/b1'")  # fmt: skip
    assert (row.verdict, row.answered) == ("apart", True)
    undo(store, str(said.id), reviewer="anna", reason="a mistake")
    town.resolve()
    assert digest(town) == before


def test_answers_are_undone_in_any_order_and_replayed_with_the_same_digest(store: Store) -> None:
    town = resolved(store, *TWO)
    digests = {frozenset[str](): digest(town)}
    first, second = say(town, 0, 1, SAME), say(town, 2, 0, DIFFERENT)
    town.resolve()
    digests[frozenset({"first", "second"})] = both = digest(town)
    undo(store, str(first.id), reviewer="anna", reason="a test")
    town.resolve()
    only_second = digest(town)
    undo(store, str(second.id), reviewer="anna", reason="a test")
    town.resolve()
    assert digest(town) == digests[frozenset()] and len({both, only_second, digest(town)}) == 3
    say(town, 0, 2, DIFFERENT, "ben")
    town.resolve()
    assert digest(town) == only_second  # by whom, when, and which side was named first is not in it
    say(town, 1, 0, SAME, "ben")
    town.resolve()
    assert digest(town) == both
    town.resolve()
    assert rows(town, "SELECT 1 FROM watermark WHERE dirty_from IS NOT NULL") == []


def test_what_contradicts_other_answers_is_refused_with_their_ids(store: Store) -> None:
    town = resolved(store, *TWO)
    chain = [say(town, 0, 1, SAME), say(town, 1, 3, SAME)]
    with pytest.raises(InputError, match="contradicts what the answers") as refusal:
        say(town, 3, 0, DIFFERENT)
    assert all(str(one.id)[:8] in str(refusal.value) for one in chain)
    undo(store, str(chain[1].id), reviewer="anna", reason="a mistake")
    apart = say(town, 3, 0, DIFFERENT)
    with pytest.raises(InputError, match=str(apart.id)[:8]):
        say(town, 1, 3, SAME)
    say(town, 1, 3, UNSURE)


def test_what_times_and_places_rule_out_is_refused_in_words(store: Store) -> None:
    town = lasting(store, ("c1", 0, 0.0), ("c2", 0.5, 5.0), ("c2", 100, 80.0))
    with pytest.raises(InputError, match="cannot be one person: they were at the same time before d1/s1/b1/c1 and"):
        say(town, 0, 1, SAME)
    say(town, 1, 2, SAME)
    with pytest.raises(InputError, match="cannot be one person: they were at the same time"):
        say(town, 2, 0, SAME)  # as the passage that it is joined with already
    say(town, 0, 1, DIFFERENT)


def test_an_answer_takes_apart_what_was_joined_automatically(store: Store) -> None:
    """1 was joined with 0, and 2 cannot be 1: that 0 and 2 are one person outweighs the program's own join."""
    town = lasting(store, ("c1", 0, 0.0), ("c1", 296, 3.0), ("c2", 297.5, 80.0))  # the last ends in another window
    assert groups(town) == {frozenset({0, 1}), frozenset({2})}
    say(town, 0, 2, SAME)
    town.resolve()
    assert groups(town) == {frozenset({0, 2}), frozenset({1})}


def test_a_cannot_link_keeps_groups_apart_that_a_third_would_join(store: Store) -> None:
    town = resolved(store, ("c1", 0, 0.0), ("c2", 100, 3.0), ("c1", 700, 1.0))
    assert groups(town) == {frozenset({0, 1, 2})}
    say(town, 0, 1, DIFFERENT)
    town.resolve()
    assert all(not {0, 1} <= group for group in groups(town)) and len(groups(town)) == 2


def test_an_answer_holds_without_a_calibration(store: Store) -> None:
    town = ThinTown(store, looks(*TWO), calibrated=False)
    town.take_in()
    town.resolve()
    say(town, 0, 2, SAME)
    town.resolve()
    assert groups(town) == {frozenset({0, 2}), frozenset({1}), frozenset({3})}


def test_an_answer_stays_with_the_passage_when_late_crops_change_it(store: Store) -> None:
    """The tracklet gets another key; its first crop stays."""
    crowd = looks(*TWO, ("c1", 101, 80.0))
    crowd.crops.track[4] = crowd.crops.track[1]
    town = ThinTown(store, crowd)
    town.take_in(np.array([0, 1, 2, 3]))
    town.resolve()
    before = keys(town)
    say(town, 0, 1, SAME)
    town.take_in(np.array([4]))
    town.resolve()
    assert keys(town)[1] != before[1]
    assert groups(town) == {frozenset({0, 1, 2, 3})}


def test_most_reviewers_decide_and_a_tie_binds_nothing(store: Store) -> None:
    town = resolved(store, *TWO)
    before = groups(town)
    say(town, 0, 1, SAME)
    say(town, 0, 1, DIFFERENT, "ben")  # of the same pair others may say another thing
    town.resolve()
    assert groups(town) == before
    with store.begin() as connection:
        assert labels(connection) == []
    say(town, 0, 1, SAME, "cleo", Way.SECOND)
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 2, 3})}
    with store.begin() as connection:
        (label,) = labels(connection)
    assert (label.is_same, label.reviewers, label.against) == (True, 2, 1)
    assert {key.hex() for key in label.keys} == {*keys(town)[:2]} and None not in label.crop_ids
    assert {*label.ways} == {Way.PAIR, Way.SECOND} and label.unit == "d1/s1/b1"


def test_labels_are_those_of_a_moment(store: Store) -> None:
    town = resolved(store, *TWO)
    first = say(town, 0, 1, SAME)
    (row,) = rows(town, "SELECT clock_timestamp() AS now")
    say(town, 2, 3, DIFFERENT)
    undo(store, str(first.id), reviewer="anna", reason="a mistake")
    with store.begin() as connection:
        assert [label.is_same for label in labels(connection, row.now)] == [True]
        assert [label.is_same for label in labels(connection)] == [False]
        assert labels(connection, unit="d1/s1/b2") == []


def test_merge_and_split_by_hand(store: Store) -> None:
    town = resolved(store, *TWO)
    before = digest(town)
    ids = rows(town, "SELECT persistent_id::text AS id FROM identity_now WHERE unit = 'd1' ORDER BY first_seen")
    merged = give(store, plan_merge(store, ids[0].id, ids[1].id), reviewer="anna", reason="both have the red bag")
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 2, 3})}
    (whole,) = rows(town, "SELECT persistent_id::text AS id FROM identity_now WHERE unit = 'd1'")
    of = keys(town)
    taken = give(store, plan_split(store, whole.id, [of[3], of[0]]), reviewer="anna", reason="another coat")
    assert taken.pairs == 4
    town.resolve()
    assert all(not (group & {0, 3} and group & {1, 2}) for group in groups(town))
    with pytest.raises(InputError, match="not all of them"):
        give(store, plan_split(store, whole.id, []), reviewer="anna", reason="nobody")
    for one in (taken, merged):
        undo(store, str(one.id), reviewer="anna", reason="a test")
    town.resolve()
    assert digest(town) == before
    with pytest.raises(InputError, match="was undone before"):
        undo(store, str(merged.id), reviewer="anna", reason="again")


def test_what_is_said_goes_with_whom_it_is_about(store: Store) -> None:
    town = resolved(store, *TWO)
    say(town, 0, 1, SAME)
    kept = say(town, 1, 3, SAME)
    town.resolve()
    (crop,) = rows(town, "SELECT encode(key, 'hex') AS key FROM crop ORDER BY captured_at LIMIT 1")
    erased = erase(store, "crop", [crop.key], actor="anna", reason="asked for it")
    assert [row.id for row in rows(town, "SELECT id FROM review_answer")] == [kept.id]
    assert len(rows(town, "SELECT 1 FROM review_pair")) == 1
    assert verify_absence(store, str(erased.id), actor="anna").found == ()


def test_in_a_live_home_an_answer_needs_an_authorization_and_is_its_accounts(
    server: EmbeddedServer, store: Store
) -> None:
    town = resolved(store, *TWO)
    people = Governed(store, superuser_of(server, store.settings))
    of = keys(town)

    def says(left: int, right: int) -> Answered:
        return answer(store, of[left], of[right], SAME, reviewer="somebody else", reason="the same coat")

    for name in (None, "emil", "otto", "ada", "anna"):
        people.as_(name)
        with pytest.raises(NotAllowed):
            says(0, 1)
    authorization = people.authorized(units=("d1/s1/b1",))
    people.as_("anna", authorization)
    given = says(0, 1)
    with pytest.raises(InputError, match="no passage's key begins"):
        says(2, 3)  # one of them outside of what the authorization covers
    (row,) = rows(town, "SELECT reviewer FROM review_answer")
    assert row.reviewer == "anna"
    people.as_("cleo")
    with pytest.raises(NotAllowed):
        undo(store, str(given.id), reviewer="cleo", reason="no")


def test_what_follows_from_answers_together_binds_below_them(store: Store) -> None:
    """3, at another building, is 0 and is not 2: so 0 and 2, whom the first building joined, are two."""
    town = resolved(store, *TWO)
    say(town, 0, 3, SAME)
    say(town, 2, 3, DIFFERENT)
    town.resolve()
    assert groups(town, "d1/s1/b1") == {frozenset({0}), frozenset({1}), frozenset({2})}
    assert groups(town) == {frozenset({0, 1, 3}), frozenset({2})}


def test_a_refusal_names_no_place_that_whoever_answers_may_not_see(server: EmbeddedServer, store: Store) -> None:
    """0 is known to be 2, of the other building, who was seen there while 1 was seen here."""
    town = lasting(store, ("c1", 0, 0.0), ("c2", 200, 80.0), ("b2/c1", 200.5, 40.0))
    say(town, 0, 2, SAME)
    with pytest.raises(InputError, match="at the same time before d1/s1/b1/c2 and d1/s1/b2/c1"):
        say(town, 0, 1, SAME)
    people = Governed(store, superuser_of(server, store.settings))
    of = keys(town)
    people.as_("anna", people.authorized(units=("d1/s1/b1",)))
    with pytest.raises(InputError, match="whom your authorization does not show") as refusal:
        answer(store, of[0], of[1], SAME, reviewer="anna", reason="the same coat")
    assert "b2" not in str(refusal.value)


def test_an_answer_is_undone_by_whoever_may_see_all_that_it_is_about(server: EmbeddedServer, store: Store) -> None:
    town = resolved(store, *TWO)
    of = keys(town)
    ids = rows(town, "SELECT persistent_id::text AS id FROM identity_now WHERE unit = 'd1' ORDER BY first_seen")
    give(store, plan_merge(store, ids[0].id, ids[1].id), reviewer="ben", reason="the same bag")
    town.resolve()
    people = Governed(store, superuser_of(server, store.settings))
    here, whole = people.authorized("case 1", units=("d1/s1/b1",)), people.authorized("case 2")
    people.as_("anna", whole)
    (person,) = rows(town, "SELECT persistent_id::text AS id FROM identity_now WHERE unit = 'd1'")
    taken = give(store, plan_split(store, person.id, [of[0]]), reviewer="anna", reason="another coat")
    people.as_("dora", here)
    with pytest.raises(NotAllowed, match="all passages that it is about"):
        undo(store, str(taken.id), reviewer="dora", reason="no")
    people.as_("dora", whole)
    undo(store, str(taken.id), reviewer="dora", reason="the same bag")
