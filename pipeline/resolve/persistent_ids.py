"""Which persistent id a new version of an identity gets: one that its members had before and that is free, if any."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from pipeline.resolve.rows import NewIdentity

_IN_USE = text(
    "SELECT persistent_id FROM (SELECT DISTINCT ON (i.persistent_id) i.persistent_id, i.retired FROM identity i "
    "  JOIN run r ON r.id = i.run_id WHERE i.unit = :unit AND i.persistent_id = ANY(:ids) "
    "  AND i.window_start < :window AND r.superseded_at IS NULL ORDER BY i.persistent_id, i.window_start DESC"
    ") AS newest WHERE NOT retired"
)


def read_ids_in_use(connection: Connection, unit: str, ids: Sequence[UUID], window: datetime) -> set[UUID]:
    """Those of `ids` that an identity of the unit has before the window, however long ago it was last seen."""
    parameters = {"unit": unit, "ids": list(ids), "window": window}
    return set(connection.execute(_IN_USE, parameters).scalars()) if ids else set()


_EARLIER = text(
    "SELECT c.persistent_id AS child, i.persistent_id AS parent, min(i.id) AS oldest FROM identity c "
    "JOIN identity_member m ON m.child_id = c.id JOIN identity i ON i.id = m.identity_id "
    "WHERE i.unit = :unit AND c.persistent_id = ANY(:children) GROUP BY 1, 2 ORDER BY 3"
)


def read_earlier_ids(connection: Connection, unit: str, children: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    """For each child, the persistent ids of the unit's identities that ever held it, the oldest commit first.

    Superseded runs count too, so that a person keeps the first id although windows were resolved again since.
    """
    result: dict[UUID, list[UUID]] = {}
    for row in connection.execute(_EARLIER, {"unit": unit, "children": list(children)}) if children else ():
        result.setdefault(row.child, []).append(row.parent)
    return result


class FreeIds:
    """Above camera level: ids of earlier identities of a unit's children that no identity of the unit has now.

    Reads the store, and is told what the runs of a chunk are about to write.
    """

    def __init__(
        self,
        connection: Connection,
        unit: str,
        in_use: Callable[[Collection[UUID]], set[UUID]],
        children: Iterable[UUID],
        *,
        is_first: bool = False,
    ) -> None:
        """`in_use`: those of some ids that an identity has now. `children` are read at once, others when asked for.

        is_first: nothing was ever written for the unit.
        """
        self._connection, self._unit, self._in_use, self._is_first = connection, unit, in_use, is_first
        self._stored: dict[UUID, list[UUID]] = {}
        self._added: dict[UUID, list[UUID]] = {}
        self._read(children)

    def __call__(self, children: Iterable[UUID]) -> dict[UUID, list[UUID]]:
        """Free ids by child, the oldest commit first."""
        wanted = list(children)
        self._read(child for child in wanted if child not in self._stored)
        earlier = {child: dict.fromkeys([*self._stored[child], *self._added.get(child, ())]) for child in wanted}
        in_use = self._in_use({id_ for ids in earlier.values() for id_ in ids})
        return {child: [id_ for id_ in ids if id_ not in in_use] for child, ids in earlier.items()}

    def add(self, versions: Sequence[NewIdentity]) -> None:
        """Adds what a window's run is about to write."""
        for version in versions:
            for child in version.children:
                self._added.setdefault(child.persistent_id, []).append(version.persistent_id)

    def _read(self, children: Iterable[UUID]) -> None:
        wanted = list(dict.fromkeys(children))
        earlier = {} if self._is_first else read_earlier_ids(self._connection, self._unit, wanted)
        self._stored.update((child, earlier.get(child, [])) for child in wanted)


class TrackletIds:
    """At camera level: ids of earlier tracklets by crop. Each id is given once.

    An id of a current tracklet of another window is never given: a second tracklet with it would be taken for a newer
    version of the first.
    """

    _EARLIER = text(
        "SELECT m.crop_id, i.persistent_id, min(i.id) AS oldest FROM identity_member m "
        "JOIN identity i ON i.id = m.identity_id WHERE m.crop_id = ANY(:crops) GROUP BY 1, 2 ORDER BY 3"
    )
    _CURRENT = text(
        "SELECT i.persistent_id FROM identity i JOIN run r ON r.id = i.run_id WHERE i.unit = :camera "
        "AND i.persistent_id = ANY(:ids) AND i.window_start <> ALL(:changed) AND r.superseded_at IS NULL"
    )

    def __init__(
        self, connection: Connection, camera: str, crop_ids: Sequence[int], changed: Sequence[datetime]
    ) -> None:
        """`changed`: windows that are written again, whose tracklets give up their ids."""
        self._ids: dict[int, list[UUID]] = {}
        for row in connection.execute(self._EARLIER, {"crops": list(crop_ids)}) if crop_ids else ():
            self._ids.setdefault(row.crop_id, []).append(row.persistent_id)
        every = list({id_ for ids in self._ids.values() for id_ in ids})
        parameters = {"camera": camera, "ids": every, "changed": list(changed)}
        self._taken: set[UUID] = set(connection.execute(self._CURRENT, parameters).scalars()) if self._ids else set()

    def claim(self, crop_ids: Sequence[int]) -> UUID:
        """The oldest free id of an earlier tracklet with one of these crops, or a new id."""
        for crop in crop_ids:
            for persistent_id in self._ids.get(crop, []):
                if persistent_id not in self._taken:
                    self._taken.add(persistent_id)
                    return persistent_id
        return uuid4()
