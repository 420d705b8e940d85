"""From a key in a decision back to the tracklets that it stood for.

Most keys are those of stored identities. Some are of a state that a run had in its hands and never wrote: an identity
whose members came back in new versions, before it was joined with somebody else. Such a state is made once more from
what the run read, and known by its key.
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

# Members of the versions that the run found of each identity that it wrote.
_BEFORE = text(
    "SELECT i.run_id, i.persistent_id AS holder, i.unit, c.persistent_id AS child, c.key, c.tracklets FROM identity i "
    "CROSS JOIN LATERAL (SELECT b.id FROM identity b JOIN run r ON r.id = b.run_id WHERE b.unit = i.unit "
    "  AND b.persistent_id = i.persistent_id AND b.window_start < i.window_start AND r.superseded_at IS NULL "
    "  ORDER BY b.window_start DESC LIMIT 1) AS before "
    "JOIN identity_member m ON m.identity_id = before.id JOIN identity c ON c.id = m.child_id "
    "WHERE i.run_id = ANY(:runs)"
)

# Versions of the children that the run read as new.
_NEWEST = text(
    "SELECT r.id AS run_id, c.persistent_id AS child, c.key, c.tracklets, c.retired FROM run r "
    "JOIN urban_unit u ON u.parent = r.unit JOIN identity c ON c.unit = u.code AND c.window_start = r.window_start "
    "JOIN run of_child ON of_child.id = c.run_id AND of_child.superseded_at IS NULL WHERE r.id = ANY(:runs)"
)


def find_states(connection: Connection, asked: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], State]:
    """(run's id, key) -> state; keys that cannot be told any more are left out."""
    wanted = set(asked)
    rows = connection.execute(_STORED, {"keys": sorted({key for _, key in wanted})})
    stored = {bytes(row.key): State(Level(row.level), row.tracklets) for row in rows}
    found = {(run, key): stored[key] for run, key in wanted if key in stored}
    runs = sorted({run for run, key in wanted if key not in stored})
    if runs:
        made = _unwritten(connection, runs)
        found |= {pair: made[pair] for pair in wanted if pair not in found and pair in made}
    return found


def _unwritten(connection: Connection, runs: Sequence[int]) -> Mapping[tuple[int, bytes], State]:
    newest = {(row.run_id, row.child): row for row in connection.execute(_NEWEST, {"runs": runs})}
    members = defaultdict(list)
    for row in connection.execute(_BEFORE, {"runs": runs}):
        now = newest.get((row.run_id, row.child))
        if now is None:
            members[row.run_id, row.holder, row.unit].append(row)
        elif not now.retired:
            members[row.run_id, row.holder, row.unit].append(now)
    made = {}
    for (run, _, unit), children in members.items():
        key = identity_key(level_of(unit), unit, (bytes(child.key) for child in children))
        made[run, key] = State(level_of(unit), sorted(t for child in children for t in child.tracklets))
    return made
