"""The identities of a unit, the last seen first, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.city.named import OUTDATED_UNSEEN
from pipeline.report.thumbnails import Picture, best, pictures_of

#: Identities on a page.
A_PAGE = 48


@dataclass(frozen=True)
class Person:
    """An identity of a unit as it is now."""

    id: int  # of its row
    persistent_id: UUID
    first_seen: datetime
    last_seen: datetime
    timed: bool
    crops: int
    tracklets: int
    cover: Picture | None  # None: its crops came without pictures


@dataclass(frozen=True)
class Place:
    """Where a page begins: after the identity that was last seen then and whose row has this id."""

    last_seen: datetime
    id: int


@dataclass(frozen=True)
class People:
    people: Sequence[Person]
    next: Place | None  # None: there are no more


# Keyset pagination: a page costs the same however far it lies, and however many people there are. It goes along the
# index of the unit's last sights and asks of each version whether a newer one counts; `identity_now` would sort all.
_PEOPLE = (
    "SELECT i.id, i.persistent_id, i.first_seen, i.last_seen, i.timed, i.crops, i.tracklets FROM identity i "
    "WHERE i.unit = :unit AND NOT i.retired {after} "
    "AND (SELECT r.superseded_at IS NULL FROM run r WHERE r.id = i.run_id) "
    "AND NOT coalesce((SELECT true FROM identity n JOIN run s ON s.id = n.run_id WHERE n.unit = i.unit "
    "  AND n.persistent_id = i.persistent_id AND n.window_start > i.window_start AND s.superseded_at IS NULL LIMIT 1), "
    f"  {OUTDATED_UNSEEN}) ORDER BY i.last_seen DESC, i.id DESC LIMIT :most"
)
_FIRST = text(_PEOPLE.format(after=""))
_LATER = text(_PEOPLE.format(after="AND i.last_seen <= :at AND (i.last_seen, i.id) < (:at, :id)"))


def read_people(connection: Connection, unit: str, after: Place | None = None, most: int = A_PAGE) -> People:
    """A page of the unit's identities, the last seen first."""
    asked = {"unit": unit, "most": most + 1}
    if after is None:
        rows = connection.execute(_FIRST, asked).all()
    else:
        rows = connection.execute(_LATER, asked | {"at": after.last_seen, "id": after.id}).all()
    more, rows = len(rows) > most, rows[:most]
    covers = pictures_of(connection, [row.tracklets[0] for row in rows if row.tracklets])
    people = [
        Person(
            row.id,
            row.persistent_id,
            row.first_seen,
            row.last_seen,
            row.timed,
            row.crops,
            len(row.tracklets),
            best(covers[row.tracklets[0]]) if row.tracklets and row.tracklets[0] in covers else None,
        )
        for row in rows
    ]
    return People(people, Place(people[-1].last_seen, people[-1].id) if more else None)
