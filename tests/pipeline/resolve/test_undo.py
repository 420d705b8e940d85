"""Every merge can be undone: the stored rows say who there was before it, and with which members."""

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Row, text

from pipeline.store import Store
from schemas.association import EventKind
from schemas.parameters import Period
from schemas.times import from_us, window_start
from tests.helpers.thin_town import ThinTown, crowd

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
    "SELECT r.window_start, e.kind, e.persistent_id, e.other_id FROM run r "
    "LEFT JOIN identity_event e ON e.run_id = r.id WHERE r.unit = :unit AND r.superseded_at IS NULL "
    "ORDER BY r.window_start, e.id"
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


def check_events(found: State, left: State, events: Sequence[Row[Any]]) -> None:
    """They say all that a window made of the state that it found, and nothing else."""
    said: dict[str, list[tuple[UUID, UUID]]] = {kind.value: [] for kind in EventKind}
    for event in events:
        said[event.kind].append((event.persistent_id, event.other_id))
    made, grown, ended = ([one for one, _ in said[kind]] for kind in ("create", "attach", "retire"))
    parts = said["merge"] + said["split"] + said["move"]
    placed = frozenset[UUID]().union(*found.values())
    assert left.keys() - found.keys() == {*made, *(one for one, _ in said["split"])}
    assert sorted(found.keys() - left.keys()) == sorted([*ended, *(other for _, other in said["merge"])])
    assert sorted(made + grown) == sorted(one for one, children in left.items() if children - placed)
    assert sorted(parts) == sorted(
        (one, other)
        for one, children in left.items()
        for other in found
        if one != other and found[other] & children - found.get(one, frozenset())
    )
    assert {*made}.isdisjoint(one for one, _ in said["split"])
    for one, other in said["merge"]:
        assert found[one].isdisjoint(found[other]) and (left[one] - found[other]) & found[one]
    assert all(one in found and one in left for one, _ in said["merge"] + said["move"])


@pytest.mark.parametrize("late", [False, True])
def test_events_say_all_that_happened(store: Store, late: bool) -> None:
    """Each window's own, from the state before it to the one after it: so a merge can be undone by its event."""
    town = ThinTown(store, CROWD)
    part = np.arange(len(CROWD.crops)) % 4 == 0
    for rows in [np.flatnonzero(~part), np.flatnonzero(part)] if late else [None]:
        town.take_in(rows)
        town.resolve()
    kinds: Counter[str] = Counter()
    for unit in UNITS:
        with store.begin() as connection:
            events = connection.execute(EVENTS, {"unit": unit}).all()
        for window, of_window in itertools.groupby(events, lambda event: event.window_start):
            its = [event for event in of_window if event.kind is not None]
            check_events(before(store, unit, window), before(store, unit, window + timedelta(seconds=1)), its)
            kinds.update(event.kind for event in its)
    assert kinds.keys() == set(EventKind) and kinds["merge"] > 5, kinds
