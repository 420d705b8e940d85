"""What changed in a district: which of its people were joined, parted or moved between each other since a moment.

Runs that were superseded keep their rows, so the state of a moment is read from the store. Passages that came in since,
or went, are no change that an answer made, and are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.city.named import OUTDATED_UNSEEN

_TOUCHED = (
    "touched AS (SELECT DISTINCT i.persistent_id FROM run r JOIN identity i ON i.run_id = r.id "
    "WHERE r.unit = :unit AND (r.finished_at >= :since OR r.superseded_at >= :since))"
)
_STATES = text(
    f"WITH {_TOUCHED}, versions AS (SELECT i.id, i.key, i.persistent_id, i.window_start, i.retired, i.tracklets, "
    "  r.finished_at < :since AND (r.superseded_at IS NULL OR r.superseded_at >= :since) AS was, "
    "  r.superseded_at IS NULL AS now_is FROM touched JOIN identity i USING (persistent_id) "
    "  JOIN run r ON r.id = i.run_id WHERE i.unit = :unit) "
    "(SELECT DISTINCT ON (persistent_id) true AS before, persistent_id, retired, tracklets FROM versions WHERE was "
    " ORDER BY persistent_id, window_start DESC) UNION ALL "
    "(SELECT false, persistent_id, retired, tracklets FROM (SELECT DISTINCT ON (persistent_id) * FROM versions "
    f" WHERE now_is ORDER BY persistent_id, window_start DESC) AS i WHERE NOT {OUTDATED_UNSEEN})"
)
# A tracklet that late crops changed is another row; its first crop says that it is the same passage.
_NAMES = text(
    "SELECT DISTINCT ON (m.identity_id) m.identity_id AS id, c.id AS crop FROM identity_member m "
    "JOIN crop c ON c.id = m.crop_id WHERE m.identity_id = ANY(:ids) ORDER BY m.identity_id, c.captured_at, c.key"
)


@dataclass(frozen=True)
class Group:
    """One person of the district, before or after."""

    persistent_id: UUID
    tracklets: tuple[int, ...]  # ids of those that were there before and are there after


@dataclass(frozen=True)
class Change:
    """People of before whose passages are now divided otherwise."""

    before: tuple[Group, ...]
    after: tuple[Group, ...]

    @property
    def kind(self) -> str:
        """joined: several became one; parted: one became several; moved: something else."""
        if len(self.after) == 1 and len(self.before) > 1:
            return "joined"
        return "parted" if len(self.before) == 1 and len(self.after) > 1 else "moved"


def read_changes(connection: Connection, district: str, since: datetime) -> list[Change]:
    """What changed since a moment, the largest change first; under `Store.signed_in` as far as it may be seen."""
    states: dict[bool, dict[UUID, Sequence[int]]] = {True: {}, False: {}}
    for row in connection.execute(_STATES, {"unit": district, "since": since}):
        if not row.retired:
            states[row.before][row.persistent_id] = row.tracklets
    ids = sorted({t for state in states.values() for its in state.values() for t in its})
    names = {row.id: row.crop for row in connection.execute(_NAMES, {"ids": ids})} if ids else {}
    sides = [{id_: {names[t]: t for t in its if t in names} for id_, its in state.items()} for state in states.values()]
    return compare(*sides)


def compare(before: Mapping[UUID, Mapping[int, int]], after: Mapping[UUID, Mapping[int, int]]) -> list[Change]:
    """The changes between two states: of each identity its passages by name, with the tracklet's id."""
    there = set[int]().union(*before.values()) & set[int]().union(*after.values())
    now: dict[int, UUID] = {name: id_ for id_, its in after.items() for name in its if name in there}
    links = {id_: {now[name] for name in its.keys() & there} for id_, its in before.items()}
    shared = Counter(new for news in links.values() for new in news)
    links = {old: news for old, news in links.items() if len(news) > 1 or any(shared[new] > 1 for new in news)}
    changes = [Change(_groups(before, olds, there), _groups(after, news, there)) for olds, news in _components(links)]
    return sorted(changes, key=lambda one: (-sum(len(g.tracklets) for g in one.before), one.before[0].tracklets))


def _groups(state: Mapping[UUID, Mapping[int, int]], ids: Iterable[UUID], there: set[int]) -> tuple[Group, ...]:
    found = [Group(id_, tuple(sorted(t for name, t in state[id_].items() if name in there))) for id_ in ids]
    return tuple(sorted(found, key=lambda group: group.tracklets))


def _components(links: Mapping[UUID, set[UUID]]) -> Iterator[tuple[set[UUID], set[UUID]]]:
    """Identities of before and after that hang together by common passages."""
    back: defaultdict[UUID, set[UUID]] = defaultdict(set)
    for old, news in links.items():
        for new in news:
            back[new].add(old)
    seen: set[UUID] = set()
    for first in links:
        if first in seen:
            continue
        olds, reached, todo = {first}, set[UUID](), [first]
        while todo:
            found = links[todo.pop()] - reached
            reached |= found
            further = set[UUID]().union(*(back[new] for new in found)) - olds
            olds |= further
            todo.extend(further)
        seen |= olds
        yield olds, reached
