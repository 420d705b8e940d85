"""The queue shows what a reviewer's answer is worth most for, page by page, and how far reviewers agree."""

from uuid import uuid4

import pytest
from sklearn.metrics import cohen_kappa_score
from sqlalchemy import text

from pipeline.review.agreement import Agreement, agreements, kappa
from pipeline.review.company import Company, brings_many
from pipeline.review.queue import Item, read_queue, second_looks
from pipeline.store import Store
from schemas.review import Said, Way
from tests.helpers.thin_town import ThinTown, crowd
from tests.pipeline.review.test_answers import DIFFERENT, SAME, TWO, UNSURE, keys, resolved, say

CROWD = crowd(cameras=12, people=40, days=0.06, seed=3)


@pytest.fixture
def town(store: Store) -> ThinTown:
    found = ThinTown(store, CROWD)
    found.take_in()
    found.resolve()
    return found


def waiting(store: Store, reviewer: str = "anna", most: int = 20) -> list[Item]:
    """All pages."""
    items: list[Item] = []
    after = None
    while True:
        with store.signed_in() as connection:
            page = read_queue(connection, "d1", reviewer, after, most)
        items += page.items
        after = page.next
        if after is None:
            return items
        assert len(page.items) == most


def pairs(items: list[Item]) -> list[tuple[bytes, bytes]]:
    return [(item.left.passage.key, item.right.passage.key) for item in items]


def test_the_most_valuable_come_first_and_pages_are_the_whole(store: Store, town: ThinTown) -> None:
    items = waiting(store, most=500)
    assert len(items) > 5 and all(item.way is Way.DECISION for item in items)
    places = [(-item.value, item.at, item.ref) for item in items]
    assert places == sorted(places) and items[0].value > 2 * items[-1].value
    assert pairs(waiting(store, most=3)) == pairs(items)
    assert all(item.left.person != item.right.person for item in items)
    with store.signed_in() as connection:
        assert read_queue(connection, "d1/s1", "anna").items


def test_the_same_two_passages_are_asked_about_once_whichever_units_decided(store: Store, town: ThinTown) -> None:
    items = waiting(store, most=500)
    first = items[0]
    with store.begin() as connection:
        twin = connection.execute(text(_TWIN), {"decision": int(first.ref[1:]), "unit": first.unit}).one()
        row = connection.execute(text("SELECT worth FROM review_open WHERE decision_id = :id"), {"id": twin.id})
        assert row.one().worth < items[0].value  # it comes later, on a page of its own
    assert pairs(waiting(store, most=1)) == pairs(items)
    with store.signed_in() as connection:
        back = read_queue(connection, "d1", "anna", items[-1].place, most=500, back=True).items
        assert pairs(list(back)) == pairs(items[:-1])[::-1]
        there = read_queue(connection, twin.unit, "anna", most=500).items  # where the first one is not asked about
    assert pairs([first])[0] in {*pairs(list(there))}


# The same decision as of another unit that does not lie above the first one.
_TWIN = (
    "INSERT INTO match_decision (run_id, left_key, right_key, row_hash, verdict, distance, appearance_log_odds, "
    "transit_log_odds, probability, operating_point, left_at, right_at) SELECT r.id, d.left_key, d.right_key, "
    "d.row_hash, 'review', d.distance, d.appearance_log_odds, d.transit_log_odds, 0.01, d.operating_point, d.left_at, "
    "d.right_at FROM match_decision d, run r WHERE d.id = :decision AND r.superseded_at IS NULL AND r.unit <> 'd1' "
    "AND r.unit <> :unit AND NOT starts_with(:unit, r.unit || '/') ORDER BY r.id LIMIT 1 "
    "RETURNING id, (SELECT unit FROM run WHERE run.id = run_id) AS unit"
)


@pytest.mark.parametrize(
    ("one", "other", "many"),
    [(3, 3, True), (40, 3, True), (40, 2, False), (1, 900, False), (None, 9, False)],
)
def test_who_comes_along_is_many_where_both_are(one: int | None, other: int, many: bool) -> None:
    left, right = (None if n is None else Company(uuid4(), n) for n in (one, other))
    assert brings_many(left, right) is brings_many(right, left) is many
    assert right and not brings_many(right, right)  # they are one by now


def test_what_is_answered_waits_no_longer(store: Store, town: ThinTown) -> None:
    items = waiting(store)
    places = {bytes.fromhex(key): number for number, key in enumerate(keys(town))}
    numbers = [(places[a], places[b]) for a, b in pairs(items)]
    say(town, *numbers[0], DIFFERENT, way=Way.DECISION)
    say(town, *numbers[1], UNSURE, way=Way.DECISION)
    assert not {*pairs(items[:2])} & {*pairs(waiting(store))}
    of_ben = {*pairs(waiting(store, "ben"))}
    assert pairs(items)[1] in of_ben and pairs(items)[0] not in of_ben
    town.resolve()
    assert not {*pairs(items[:1])} & {*pairs(waiting(store, "ben"))}


def test_second_looks_and_agreement(store: Store) -> None:
    town = resolved(store, *TWO)
    say(town, 0, 1, SAME)
    say(town, 0, 2, SAME)
    with store.signed_in() as connection:
        assert second_looks(connection, "d1", "anna").items == []
        found = second_looks(connection, "d1", "ben").items
    assert len(found) == 2 and all(item.way is Way.SECOND for item in found)
    say(town, 0, 1, DIFFERENT, "ben", Way.SECOND)
    say(town, 0, 2, SAME, "ben", Way.SECOND)
    with store.signed_in() as connection:
        assert second_looks(connection, "d1", "ben").items == []
        assert agreements(connection, "d1") == [Agreement("anna", "ben", 2, 1, 0.0)]
        assert agreements(connection, "d1/s1/b2") == []


def test_kappa_is_cohens() -> None:
    first = [SAME, SAME, DIFFERENT, UNSURE, SAME, DIFFERENT, DIFFERENT, SAME]
    second = [SAME, DIFFERENT, DIFFERENT, SAME, SAME, DIFFERENT, UNSURE, SAME]
    expected = cohen_kappa_score([one.value for one in first], [one.value for one in second])
    assert kappa(list(zip(first, second, strict=True))) == pytest.approx(expected)
    assert kappa([(Said.SAME, Said.SAME)]) is None
