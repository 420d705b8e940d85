"""The identities of a unit, the last seen first, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

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


# Keyset pagination: a page costs the same however far it lies.
_PEOPLE = text(
    "SELECT i.id, i.persistent_id, i.first_seen, i.last_seen, i.timed, i.crops, i.tracklets FROM identity_now i "
    "WHERE i.unit = :unit AND (CAST(:at AS timestamptz) IS NULL OR (i.last_seen, i.id) < (:at, :id)) "
    "ORDER BY i.last_seen DESC, i.id DESC LIMIT :most"
)


def read_people(connection: Connection, unit: str, after: Place | None = None, most: int = A_PAGE) -> People:
    """A page of the unit's identities, the last seen first."""
    place = {"at": after and after.last_seen, "id": after.id if after else 0}
    rows = connection.execute(_PEOPLE, {"unit": unit, "most": most + 1, **place}).all()
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
