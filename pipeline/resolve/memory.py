"""A unit's identities in memory, so that resolving many windows reads each row once.

It holds what the store would return: vectors in half precision, the newest versions of current runs. Members of
identities that were not seen for some time are dropped and read again when they are needed.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from pipeline.resolve.persistent_ids import read_ids_in_use
from pipeline.resolve.read import horizon_start, read_context, read_member_ids, read_members
from pipeline.resolve.rows import CameraNumbers, Identity, NewIdentity
from schemas.times import to_us

#: Members of identities last seen longer ago than this are dropped, microseconds.
_KEPT_US = 2 * 3_600_000_000


class UnitMemory:
    """The identities of one unit, by persistent id. One process at a time holds it, under the unit's lock."""

    def __init__(self, unit: str, model_id: int, numbers: CameraNumbers, horizon_s: int) -> None:
        self.unit = unit
        self._model_id, self._numbers, self._horizon_s = model_id, numbers, horizon_s
        self._now: dict[UUID, Identity] = {}  # seen within the horizon
        self._child_ids: dict[UUID, list[UUID]] = {}
        self._holder: dict[UUID, UUID] = {}  # child -> the identity that holds it
        self._members: dict[UUID, list[Identity]] = {}
        self._read_at: datetime | None = None  # the window before which the store was read
        self._others: dict[UUID, bool] = {}  # ids that are not in `_now`: whether an identity has them

    def read(self, connection: Connection, window: datetime, *, is_first: bool = False) -> None:
        """Reads the unit's identities as they were before `window`. is_first: there are none."""
        self._read_at = window
        if is_first:
            return
        horizon = horizon_start(window, self._horizon_s)
        self.apply(connection, read_context(connection, self.unit, window, horizon, self._model_id, self._numbers))

    def apply(self, connection: Connection, versions: Sequence[Identity]) -> None:
        """Takes over the versions that a window's current run wrote earlier."""
        child_ids = read_member_ids(connection, [version.id for version in versions if not version.retired])
        for version in versions:
            if version.retired:
                self._retire(version.persistent_id)
        for version in versions:
            if not version.retired:
                self._put(version, child_ids.get(version.id, []))

    def add(self, versions: Sequence[NewIdentity]) -> None:
        """Takes over the versions that a window's run is about to write."""
        for version in versions:
            if version.retired:
                self._retire(version.persistent_id)
        for version in versions:
            if not version.retired:
                self._put(version.as_stored(self.unit), [child.persistent_id for child in version.children])
                self._members[version.persistent_id] = list(version.children)

    def context(self, window: datetime, touched: Collection[UUID] = ()) -> list[Identity]:
        """Identities seen within the window's horizon that have a prototype of the model or are `touched`, by key.

        Drops identities beyond the horizon: later windows do not compare with them.
        """
        horizon_us = to_us(horizon_start(window, self._horizon_s))
        for old in [id_ for id_, identity in self._now.items() if identity.last_seen_us < horizon_us]:
            self._drop(old)
            self._others[old] = True
        found = [one for id_, one in self._now.items() if one.prototypes is not None or id_ in touched]
        return sorted(found, key=lambda identity: identity.key)

    def holders(self, children: Iterable[UUID]) -> set[UUID]:
        """Identities that hold an earlier version of one of these children."""
        return {self._holder[child] for child in children if child in self._holder}

    def ids_in_use(self, connection: Connection, ids: Collection[UUID]) -> set[UUID]:
        """Those of `ids` that an identity has, also one beyond the horizon or without a prototype of the model."""
        asked = set(ids) - self._now.keys()
        new = [id_ for id_ in asked if id_ not in self._others]
        assert self._read_at is not None, "read() comes first"
        in_use = read_ids_in_use(connection, self.unit, new, self._read_at)
        self._others.update((id_, id_ in in_use) for id_ in new)
        return (set(ids) & self._now.keys()) | {id_ for id_ in asked if self._others[id_]}

    def members(self, connection: Connection | None, identities: Iterable[UUID]) -> dict[UUID, list[Identity]]:
        """The children of each identity, by key. connection: to read those that were forgotten."""
        wanted = list(identities)
        missing = {self._now[id_].id: id_ for id_ in wanted if id_ not in self._members}
        if not missing:
            return {id_: self._members[id_] for id_ in wanted}
        assert connection is not None, "members that were forgotten are read again"
        for holder, members in read_members(connection, list(missing), self._model_id, self._numbers).items():
            self._members[missing[holder]] = members
        return {id_: self._members[id_] for id_ in wanted}

    def forget_members(self, window: datetime) -> None:
        """Bounds memory: drops the members of identities last seen long before `window`."""
        since = to_us(window) - _KEPT_US
        self._members = {id_: members for id_, members in self._members.items() if self._now[id_].last_seen_us >= since}

    def _put(self, identity: Identity, child_ids: list[UUID]) -> None:
        id_ = identity.persistent_id
        self._drop(id_)
        self._now[id_] = identity
        self._child_ids[id_] = child_ids
        self._holder.update(dict.fromkeys(child_ids, id_))

    def _retire(self, id_: UUID) -> None:
        self._drop(id_)
        self._others[id_] = False

    def _drop(self, id_: UUID) -> None:
        if self._now.pop(id_, None) is None:
            return
        self._members.pop(id_, None)
        for child in self._child_ids.pop(id_):
            if self._holder.get(child) == id_:
                del self._holder[child]
