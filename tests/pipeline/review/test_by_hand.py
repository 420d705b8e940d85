"""What is done by hand to whole groups holds for the groups, whatever comes later; later windows replay it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.review import answers
from pipeline.review.answers import give, hindrances, plan_follow, plan_merge, plan_split, undo
from pipeline.review.labels import labels
from pipeline.store import Store
from schemas.parameters import Period
from schemas.review import Way
from tests.helpers.thin_town import ThinTown, looks
from tests.pipeline.review.test_answers import DIFFERENT, digest, groups, keys, lasting, rows, say

#: Two people, each seen at both buildings; and one who is taken for the first of them, and was seen while the last was.
GROUPS = (("c1", 0, 0.0), ("b2/c1", 400, 3.0), ("c1", 800, 80.0), ("b2/c1", 1200, 83.0))
LATE = ("c2", 1200.5, 1.0)


def ids(town: ThinTown) -> list[str]:
    found = rows(town, "SELECT persistent_id::text AS id FROM identity_now WHERE unit = 'd1' ORDER BY first_seen")
    return [row.id for row in found]


def two_groups(store: Store, *later: tuple[str, float, float]) -> ThinTown:
    """GROUPS, resolved; `later` passages follow at `town.take_in`. Each lasts 3 s."""
    passages = (*GROUPS, *later)
    crowd = looks(*(one for camera, at, angle in passages for one in ((camera, at, angle), (camera, at + 3, angle))))
    crowd.crops.track[1::2] = crowd.crops.track[::2]
    town = ThinTown(store, crowd)
    town.take_in(np.arange(2 * len(GROUPS)))
    town.resolve()
    assert groups(town) == {frozenset({0, 1}), frozenset({2, 3})}
    return town


def test_groups_that_were_joined_stay_together_whoever_comes_in_late(store: Store) -> None:
    """Somebody who comes in late is taken for one of them, and was seen elsewhere then."""
    town = two_groups(store, LATE)
    done = give(store, plan_merge(store, *ids(town)), reviewer="anna", reason="the same bag")
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 2, 3})}
    town.take_in(np.arange(2 * len(GROUPS), 2 * len(GROUPS) + 2))
    town.resolve()
    # Each building has kept its part of the person; 4, whom the first one joined, was seen while 3 was.
    assert groups(town) == {frozenset({0, 2, 4}), frozenset({1, 3})}
    assert {one.other.key.hex() for one in hindrances(store, str(done.id)).found} == {keys(town)[4]}
    parted = give(store, plan_follow(store, str(done.id)), reviewer="anna", reason="stands in the way")
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 2, 3}), frozenset({4})}
    undo(store, str(parted.id), reviewer="anna", reason="a test")
    undo(store, str(done.id), reviewer="anna", reason="a test")
    town.resolve()
    assert all(not {0, 2} <= group for group in groups(town))


def windows(town: ThinTown) -> list[datetime]:
    """The beginnings of the city's windows, and one after the last."""
    step = timedelta(seconds=town.store.settings.association.window_s)
    found = rows(town, "SELECT DISTINCT date_bin(:step, captured_at, 'epoch') AS at FROM crop ORDER BY 1", step=step)
    return [*(row.at for row in found), found[-1].at + step]


@pytest.mark.parametrize("by_hand", [Way.MERGE, Way.SPLIT])
def test_window_by_window_the_same_is_decided_as_at_once(store: Store, by_hand: Way) -> None:
    later = (("c2", 1600, 81.0), ("b2/c1", 2400, 2.0), ("c1", 3200, 79.0), ("c2", 4000, 1.0))
    town = two_groups(store, *later)
    if by_hand is Way.MERGE:
        give(store, plan_merge(store, *ids(town)), reviewer="anna", reason="the same bag")
    else:
        give(store, plan_split(store, ids(town)[0], [keys(town)[1]]), reviewer="anna", reason="another coat")
    town.take_in(np.arange(2 * len(GROUPS), 2 * (len(GROUPS) + len(later))))
    for until in windows(town):
        town.resolve(period=Period(to_time=until))
    found = digest(town), groups(town)
    if by_hand is Way.MERGE:
        assert any({0, 1, 2, 3} <= group for group in found[1])
    else:
        assert not any({0, 1} <= group for group in found[1])
    with store.begin() as connection:
        connection.execute(text("UPDATE watermark SET dirty_from = '2026-01-01', version = version + 1"))
    town.resolve()
    assert (digest(town), groups(town)) == found


def test_of_what_was_done_by_hand_to_a_pair_the_newest_counts(store: Store) -> None:
    """Whoever takes passages out of what somebody else had joined is followed, until that is undone."""
    town = two_groups(store)
    give(store, plan_merge(store, *ids(town)), reviewer="anna", reason="the same bag")
    town.resolve()
    joined = digest(town)
    (whole,) = ids(town)
    taken = give(store, plan_split(store, whole, keys(town)[2:]), reviewer="ben", reason="another bag")
    town.resolve()
    assert groups(town) == {frozenset({0, 1}), frozenset({2, 3})}
    with store.begin() as connection:
        assert {one.is_same for one in labels(connection) if one.against} == set()
    undo(store, str(taken.id), reviewer="ben", reason="a test")
    town.resolve()
    assert digest(town) == joined
    say(town, 0, 2, DIFFERENT, "ben")  # an answer about the pair itself is one voice against another
    town.resolve()
    assert groups(town) == {frozenset({0, 1, 2, 3})}


def test_a_merge_names_nobody_whom_times_and_places_keep_from_the_rest(store: Store) -> None:
    town = lasting(store, ("c1", 0, 0.0), ("b2/c1", 400, 3.0), ("c2", 400.5, 80.0), ("b2/c1", 900, 83.0))
    assert groups(town) == {frozenset({0, 1}), frozenset({2, 3})}
    of = [bytes.fromhex(key) for key in keys(town)]
    plan = plan_merge(store, *ids(town))
    named = [{of.index(passage.key) for passage in pair} for pair in plan.pairs]
    assert {1, 2} not in named and {frozenset(pair) for pair in named} in (
        {frozenset({0, 2}), frozenset({0, 3}), frozenset({2, 3})},
        {frozenset({0, 1}), frozenset({0, 3}), frozenset({1, 3})},
    )


def test_many_passages_are_taken_from_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_PAIRS", 8)
    passages: Sequence[tuple[str, float, float]] = [
        (camera, 100.0 * n + add, angle)
        for n in range(4)
        for camera, add, angle in (("c1", 0.0, n * 0.5), ("b2/c1", 40.0, n * 0.5))
    ]
    town = lasting(store, *passages)
    (whole,) = ids(town)
    assert groups(town) == {frozenset(range(8))}
    of = keys(town)
    plan = plan_split(store, whole, [of[n] for n in range(8) if n % 2])  # all of the second building
    assert len(plan.pairs) == 1  # of each building one stands for all
    give(store, plan, reviewer="anna", reason="another coat")
    town.resolve()
    assert groups(town) == {frozenset({0, 2, 4, 6}), frozenset({1, 3, 5, 7})}
