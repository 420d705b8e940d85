"""Finds the tracklets that a key in a match decision stood for.

Most keys are those of stored identities. Some are of a state that a run compared but never wrote: an identity whose
members came in new versions, before it was joined with another. Such a state is made again from what the run read, and
recognized by its key.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from schemas.keys import identity_key
from schemas.levels import Level, level_of


@dataclass(frozen=True)
class State:
    level: Level
    tracklets: Sequence[int]


_STORED = text(
    "SELECT DISTINCT ON (key) key, level, tracklets FROM identity WHERE key = ANY(:keys) AND NOT retired "
    "ORDER BY key, id DESC"
)

# For each identity that a run wrote: the members of its version before the run.
_BEFORE = text(
    "SELECT i.run_id, i.persistent_id AS holder, i.unit, c.persistent_id AS child, c.key, c.tracklets FROM identity i "
    "CROSS JOIN LATERAL (SELECT b.id FROM identity b JOIN run r ON r.id = b.run_id WHERE b.unit = i.unit "
    "  AND b.persistent_id = i.persistent_id AND b.window_start < i.window_start AND r.superseded_at IS NULL "
    "  ORDER BY b.window_start DESC LIMIT 1) AS before "
    "JOIN identity_member m ON m.identity_id = before.id JOIN identity c ON c.id = m.child_id "
    "WHERE i.run_id = ANY(:runs)"
)

# Versions of the children that the runs read as new.
_NEW_CHILDREN = text(
    "SELECT r.id AS run_id, c.persistent_id AS child, c.key, c.tracklets, c.retired FROM run r "
    "JOIN urban_unit u ON u.parent = r.unit JOIN identity c ON c.unit = u.code AND c.window_start = r.window_start "
    "JOIN run of_child ON of_child.id = c.run_id AND of_child.superseded_at IS NULL WHERE r.id = ANY(:runs)"
)


def find_states(connection: Connection, asked: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], State]:
    """The state of each (run's id, key) that can still be found."""
    wanted = set(asked)
    rows = connection.execute(_STORED, {"keys": sorted({key for _, key in wanted})})
    stored = {bytes(row.key): State(Level(row.level), row.tracklets) for row in rows}
    found = {(run, key): stored[key] for run, key in wanted if key in stored}
    runs = sorted({run for run, key in wanted if key not in stored})
    if runs:
        remade = _unwritten(connection, runs)
        found |= {pair: remade[pair] for pair in wanted if pair not in found and pair in remade}
    return found


def _unwritten(connection: Connection, runs: Sequence[int]) -> Mapping[tuple[int, bytes], State]:
    """States with the new children in place of their earlier versions, by (run's id, key)."""
    new = {(row.run_id, row.child): row for row in connection.execute(_NEW_CHILDREN, {"runs": runs})}
    members = defaultdict(list)
    for row in connection.execute(_BEFORE, {"runs": runs}):
        child = new.get((row.run_id, row.child))
        if child is None:
            members[row.run_id, row.holder, row.unit].append(row)
        elif not child.retired:
            members[row.run_id, row.holder, row.unit].append(child)
    states = {}
    for (run, _, unit), children in members.items():
        key = identity_key(level_of(unit), unit, (bytes(child.key) for child in children))
        states[run, key] = State(level_of(unit), sorted(t for child in children for t in child.tracklets))
    return states
