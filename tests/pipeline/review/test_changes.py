"""What an answer changes is told before, by a rehearsal that leaves nothing, and after."""

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from pipeline.review.answers import give, plan_answer, undo
from pipeline.review.changes import Change, compare, read_changes
from pipeline.review.rehearsal import rehearse, rehearse_undo
from pipeline.store import Store
from schemas.errors import InputError
from schemas.review import Said
from tests.helpers.thin_town import ThinTown
from tests.pipeline.review.test_answers import TWO, digest, groups, keys, resolved, rows


def sizes(changes: list[Change]) -> list[tuple[str, list[int], list[int]]]:
    return [
        (one.kind, [len(group.tracklets) for group in one.before], [len(group.tracklets) for group in one.after])
        for one in changes
    ]


def everything(town: ThinTown) -> list[int]:
    tables = ("run", "identity", "identity_member", "identity_event", "match_decision", "prototype", "review_answer")
    return [rows(town, f"SELECT count(*) AS many FROM {table}")[0].many for table in tables]


def test_a_rehearsal_says_what_the_resolve_then_does_and_leaves_nothing(store: Store) -> None:
    town = resolved(store, *TWO)
    of, before, there = keys(town), digest(town), everything(town)
    plan = plan_answer(store, of[0], of[1], Said.SAME)
    expected = rehearse(store, town.core, town.model, plan, reviewer="anna")
    assert sizes(expected) == [("joined", [2, 2], [4])]
    assert everything(town) == there and digest(town) == before
    assert rows(town, "SELECT 1 FROM watermark WHERE dirty_from IS NOT NULL") == []
    given = give(store, plan, reviewer="anna", reason="the same coat")
    (row,) = rows(town, "SELECT at FROM review_answer")
    town.resolve()
    with store.signed_in() as connection:
        assert sizes(read_changes(connection, "d1", row.at)) == sizes(expected)
    back = rehearse_undo(store, town.core, town.model, str(given.id))
    assert sizes(back) == [("parted", [4], [2, 2])]
    assert groups(town) == {frozenset({0, 1, 2, 3})}
    undo(store, str(given.id), reviewer="anna", reason="a mistake")
    with pytest.raises(InputError, match="was undone before"):
        rehearse_undo(store, town.core, town.model, str(given.id))
    town.resolve()
    with store.signed_in() as connection:
        assert read_changes(connection, "d1", row.at) == []  # as it was before the answer


def test_an_answer_that_changes_nobody_is_said_to_change_nobody(store: Store) -> None:
    town = resolved(store, *TWO)
    of = keys(town)
    plan = plan_answer(store, of[0], of[2], Said.SAME)
    assert rehearse(store, town.core, town.model, plan, reviewer="anna") == []


def test_what_would_be_refused_is_refused_in_the_rehearsal(store: Store) -> None:
    town = resolved(store, *TWO)
    of = keys(town)
    give(store, plan_answer(store, of[0], of[1], Said.SAME), reviewer="anna", reason="a coat")
    with pytest.raises(InputError, match="contradicts"):
        give(store, plan_answer(store, of[1], of[3], Said.SAME), reviewer="anna", reason="a coat") and rehearse(
            store, town.core, town.model, plan_answer(store, of[0], of[3], Said.DIFFERENT), reviewer="ben"
        )
    with store.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM review_answer")).scalar_one() == 2


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([{1, 2}, {3}], [{1, 2, 3}], [("joined", [2, 1], [3])]),
        ([{1, 2, 3}], [{1}, {2, 3}], [("parted", [3], [1, 2])]),
        ([{1, 2}, {3, 4}], [{1}, {2, 3, 4}], [("moved", [2, 2], [1, 3])]),
        ([{1, 2}, {3}], [{1, 2, 5}, {3}, {6}], []),  # who came in is no change
        ([{1, 2}, {3}], [{1}], []),  # nor who went
    ],
)
def test_changes_between_two_states(
    before: list[set[int]], after: list[set[int]], found: list[tuple[str, list[int], list[int]]]
) -> None:
    states = [
        {UUID(int=100 * side + n): {t: t for t in its} for n, its in enumerate(state)}
        for side, state in enumerate((before, after), 1)
    ]
    assert sizes(compare(*states)) == found


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_change_is_who_hangs_together_and_was_divided_otherwise(passages: list[tuple[int, int]]) -> None:
    """Passages: whose each was, and whose it is now. A matrix, squared until it stays, says who hangs together."""
    before: dict[UUID, dict[int, int]] = {}
    after: dict[UUID, dict[int, int]] = {}
    reach = np.eye(26, dtype=bool)
    for number, (old, new) in enumerate(passages):
        before.setdefault(UUID(int=old), {})[number] = number
        after.setdefault(UUID(int=13 + new), {})[number] = number
        reach[old, 13 + new] = reach[13 + new, old] = True
    for _ in range(5):
        reach = (reach.astype(int) @ reach) > 0
    there = {id_.int for id_ in (*before, *after)}
    whole = {frozenset(map(int, np.flatnonzero(reach[one]))) & there for one in there}
    found = [{group.persistent_id.int for group in (*one.before, *one.after)} for one in compare(before, after)]
    assert len(found) == len(set(map(frozenset, found)))
    assert set(map(frozenset, found)) == {one for one in whole if len(one) > 2}
