"""A unit's identities between two of its windows, so that a unit over many windows reads each row once.

It is what the store would give back: vectors in half precision, and the newest versions of current runs. The members'
vectors of those who were not seen for a while are left in the store and read again when they are needed.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from pipeline.resolve.read import (
    CameraNumbers,
    Identity,
    earlier_ids,
    horizon_start,
    read_alive,
    read_context,
    read_member_ids,
    read_members,
)
from pipeline.resolve.write import NewIdentity
from schemas.times import to_us

#: Members of identities that were last seen longer ago than this are read again when they are needed, microseconds.
_KEPT_US = 2 * 3_600_000_000


class UnitMemory:
    """The identities of one unit. One process at a time holds it, under the unit's lock."""

    def __init__(self, unit: str, model_id: int, numbers: CameraNumbers, horizon_s: int) -> None:
        self.unit = unit
        self._model_id, self._numbers, self._horizon_s = model_id, numbers, horizon_s
        self._now: dict[UUID, Identity] = {}
        self._child_ids: dict[UUID, list[UUID]] = {}
        self._holder: dict[UUID, UUID] = {}  # child -> the identity that holds it
        self._members: dict[UUID, list[Identity]] = {}
        self._since: datetime | None = None  # before which the store is asked
        self._others: dict[UUID, bool] = {}  # of ids that are not in `_now`: whether an identity bears them yet

    def read(self, connection: Connection, window: datetime) -> None:
        """As the store has them before `window`."""
        self._since = window
        horizon = horizon_start(window, self._horizon_s)
        found = read_context(connection, self.unit, window, horizon, self._model_id, self._numbers)
        self.apply(connection, found)

    def apply(self, connection: Connection, versions: Sequence[Identity]) -> None:
        """What a window's current run wrote, as it is in the store."""
        child_ids = read_member_ids(connection, [version.id for version in versions if not version.retired])
        for version in versions:
            if version.retired:
                self._end(version.persistent_id)
        for version in versions:
            if not version.retired:
                self._put(version, child_ids.get(version.id, []))

    def add(self, versions: Sequence[NewIdentity]) -> None:
        """What a window's run is about to write."""
        for version in versions:
            if version.retired:
                self._end(version.persistent_id)
        for version in versions:
            if not version.retired:
                self._put(version.as_stored(self.unit), [child.persistent_id for child in version.children])
                self._members[version.persistent_id] = list(version.children)

    def context(self, window: datetime) -> list[Identity]:
        """Those within the horizon that the model knows, by key. Forgets the others: they cannot come back."""
        horizon_us = to_us(horizon_start(window, self._horizon_s))
        for old in [own for own, identity in self._now.items() if identity.last_seen_us < horizon_us]:
            self._drop(old)
            self._others[old] = True
        known = [identity for identity in self._now.values() if identity.prototypes is not None]
        return sorted(known, key=lambda identity: identity.key)

    def holders(self, children: Iterable[UUID]) -> set[UUID]:
        """The identities that hold an earlier version of one of these children."""
        return {self._holder[child] for child in children if child in self._holder}

    def borne(self, connection: Connection, ids: Iterable[UUID]) -> set[UUID]:
        """Which of these ids an identity bears that the model knows or that is beyond the horizon."""
        asked = set(ids)
        new = [own for own in asked if own not in self._now and own not in self._others]
        assert self._since is not None, "read before it is asked"
        found = read_alive(connection, self.unit, new, self._since)
        self._others.update((own, own in found) for own in new)
        return {
            own for own in asked if (self._now[own].prototypes is not None if own in self._now else self._others[own])
        }

    def members(self, connection: Connection, identities: Iterable[UUID]) -> dict[UUID, list[Identity]]:
        """Their children, by key."""
        wanted = list(identities)
        missing = {self._now[own].id: own for own in wanted if own not in self._members}
        for holder, members in read_members(connection, list(missing), self._model_id, self._numbers).items():
            self._members[missing[holder]] = members
        return {own: self._members[own] for own in wanted}

    def forget_members(self, window: datetime) -> None:
        """Bounds memory: keeps the members of those who were seen shortly before `window`."""
        since = to_us(window) - _KEPT_US
        self._members = {own: its for own, its in self._members.items() if self._now[own].last_seen_us >= since}

    def _put(self, identity: Identity, child_ids: list[UUID]) -> None:
        own = identity.persistent_id
        self._drop(own)
        self._now[own] = identity
        self._child_ids[own] = child_ids
        self._holder.update(dict.fromkeys(child_ids, own))

    def _end(self, own: UUID) -> None:
        self._drop(own)
        self._others[own] = False

    def _drop(self, own: UUID) -> None:
        if self._now.pop(own, None) is None:
            return
        self._members.pop(own, None)
        for child in self._child_ids.pop(own):
            if self._holder.get(child) == own:
                del self._holder[child]


class Heirs:
    """By which persistent ids that nobody bears any more a unit's children were known.

    In the store, and in the runs of a chunk that is about to be written.
    """

    def __init__(self, connection: Connection, memory: UnitMemory, children: Iterable[UUID]) -> None:
        """`children`: those that will mostly be asked for, read at once; others are read when they are."""
        self._connection, self._memory = connection, memory
        self._stored: dict[UUID, list[UUID]] = {}
        self._added: dict[UUID, list[UUID]] = {}
        self._read(children)

    def __call__(self, children: Iterable[UUID]) -> dict[UUID, list[UUID]]:
        """For each, oldest commit first."""
        wanted = list(children)
        self._read(child for child in wanted if child not in self._stored)
        found = {child: dict.fromkeys([*self._stored[child], *self._added.get(child, ())]) for child in wanted}
        borne = self._memory.borne(self._connection, (own for its in found.values() for own in its))
        return {child: [own for own in its if own not in borne] for child, its in found.items()}

    def add(self, versions: Sequence[NewIdentity]) -> None:
        """What a window's run is about to write."""
        for version in versions:
            for child in version.children:
                self._added.setdefault(child.persistent_id, []).append(version.persistent_id)

    def _read(self, children: Iterable[UUID]) -> None:
        wanted = list(dict.fromkeys(children))
        found = earlier_ids(self._connection, self._memory.unit, wanted)
        self._stored.update((child, found.get(child, [])) for child in wanted)
