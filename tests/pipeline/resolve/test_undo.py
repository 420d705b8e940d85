"""Every merge can be undone: the stored rows say who there was before it, and with which members."""

from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.store import Store
from schemas.parameters import Period
from schemas.times import from_us, window_start
from tests.pipeline.resolve.thin import ThinTown, crowd

CROWD = crowd()
UNITS = ("d1/s1/b1", "d1/s1", "d1")
State = dict[UUID, frozenset[UUID]]  # persistent id -> its children's persistent ids

#: A unit's versions as its current runs made them, oldest window first.
VERSIONS = text(
    "SELECT i.window_start, i.persistent_id, i.retired, array_remove(array_agg(c.persistent_id), NULL) AS children "
    "FROM identity i JOIN run r ON r.id = i.run_id LEFT JOIN identity_member m ON m.identity_id = i.id "
    "LEFT JOIN identity c ON c.id = m.child_id WHERE i.unit = :unit AND r.superseded_at IS NULL "
    "GROUP BY i.id ORDER BY i.window_start, i.id"
)
EVENTS = text(
    "SELECT r.window_start, e.kind, e.persistent_id, e.other_id FROM identity_event e JOIN run r ON r.id = e.run_id "
    "WHERE r.unit = :unit AND r.superseded_at IS NULL ORDER BY r.window_start DESC, e.id DESC"
)
NOW = text(
    "SELECT n.persistent_id, array_agg(c.persistent_id) AS children FROM identity_now n "
    "JOIN identity_member m ON m.identity_id = n.id JOIN identity c ON c.id = m.child_id "
    "WHERE n.unit = :unit GROUP BY n.persistent_id"
)


def now(store: Store, unit: str) -> State:
    with store.begin() as connection:
        return {row.persistent_id: frozenset(row.children) for row in connection.execute(NOW, {"unit": unit})}


def before(store: Store, unit: str, window: datetime) -> State:
    """Each identity's newest version before the window, without those that had ended."""
    state: State = {}
    with store.begin() as connection:
        for row in connection.execute(VERSIONS, {"unit": unit}):
            if row.window_start < window:
                state.pop(row.persistent_id, None)
                if not row.retired:
                    state[row.persistent_id] = frozenset(row.children)
    return state


def test_every_state_that_was_can_be_rebuilt(store: Store) -> None:
    """A town is resolved half an hour by half an hour; at the end, each state that was is found again."""
    town = ThinTown(store, CROWD)
    town.take_in()
    first, last = (window_start(from_us(int(us)), 300) for us in CROWD.crops.time_us[[0, -1]])
    was: dict[datetime, dict[str, State]] = {}
    until = first
    while until <= last:
        until += timedelta(seconds=1800)
        town.resolve(period=Period(to_time=until))
        was[until] = {unit: now(store, unit) for unit in UNITS}
    assert len(was) > 5 and len({len(its["d1"]) for its in was.values()}) > 3
    for window, states in was.items():
        for unit, state in states.items():
            assert before(store, unit, window) == state


@pytest.mark.parametrize("late", [False, True])
def test_each_merge_says_who_was_apart_before(store: Store, late: bool) -> None:
    """Undone by its event: the one that was taken in has its members again, and the survivor has them no more."""
    town = ThinTown(store, CROWD)
    part = np.arange(len(CROWD.crops)) % 4 == 0
    for rows in [np.flatnonzero(~part), np.flatnonzero(part)] if late else [None]:
        town.take_in(rows)
        town.resolve()
    undone = 0
    for unit in UNITS:
        with store.begin() as connection:
            events = connection.execute(EVENTS, {"unit": unit}).all()
        for event in events:
            found, left = (
                before(store, unit, at) for at in (event.window_start, event.window_start + timedelta(seconds=1))
            )
            one, other = event.persistent_id, event.other_id
            if event.kind == "merge":
                assert one in found and other in found and other not in left
                assert found[one].isdisjoint(found[other])
                assert left[one] & found[other] and (left[one] - found[other]) & found[one]
                undone += 1
            else:
                assert (one in found) == (event.kind == "attach") and one in left
                assert event.kind != "split" or (other in found and left[one] & found[other])
    assert undone > 5
