"""Every merge can be undone: the stored rows give the identities before it with their members."""

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

#: Versions that a unit's current runs wrote, the oldest window first.
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
    """Each identity's newest version before the window; retired identities are left out."""
    state: State = {}
    with store.begin() as connection:
        for row in connection.execute(VERSIONS, {"unit": unit}):
            if row.window_start < window:
                state.pop(row.persistent_id, None)
                if not row.retired:
                    state[row.persistent_id] = frozenset(row.children)
    return state


def test_every_earlier_state_can_be_rebuilt(store: Store) -> None:
    """A town is resolved half an hour at a time. At the end the rows still give the state after each."""
    town = ThinTown(store, CROWD)
    town.take_in()
    first, last = (window_start(from_us(int(us)), 300) for us in CROWD.crops.time_us[[0, -1]])
    states: dict[datetime, dict[str, State]] = {}
    until = first
    while until <= last:
        until += timedelta(seconds=1800)
        town.resolve(period=Period(to_time=until))
        states[until] = {unit: now(store, unit) for unit in UNITS}
    assert len(states) > 5 and len({len(by_unit["d1"]) for by_unit in states.values()}) > 3
    for window, by_unit in states.items():
        for unit, state in by_unit.items():
            assert before(store, unit, window) == state


def check_events(found: State, left: State, events: Sequence[Row[Any]]) -> None:
    """Asserts that the events of a window describe exactly the change from the state `found` to the state `left`."""
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
def test_events_describe_every_change(store: Store, late: bool) -> None:
    """Each window's events give the change from the state before it, so that a merge can be undone by its event."""
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
            known = [event for event in of_window if event.kind is not None]  # a run without events has one empty row
            check_events(before(store, unit, window), before(store, unit, window + timedelta(seconds=1)), known)
            kinds.update(event.kind for event in known)
    assert kinds.keys() == set(EventKind) and kinds["merge"] > 5, kinds
