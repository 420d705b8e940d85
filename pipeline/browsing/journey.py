"""One identity: where and when it was seen, and all its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, text

from pipeline.browsing.joins import Join, read_joins
from pipeline.cameras.rows import read_outages
from pipeline.report.identities import DistrictIdentity, tracklets_by_id
from pipeline.report.thumbnails import Picture, contexts_of, pictures_of
from pipeline.report.timeline import Timeline, draw_timeline
from schemas.errors import InputError

#: Most tracklets that a page shows, the earliest.
TRACKLETS = 400


@dataclass(frozen=True)
class Journey:
    unit: str
    identity: DistrictIdentity  # with at most TRACKLETS of its tracklets
    tracklets: int  # of all
    crops: int
    timeline: Timeline
    pictures: Mapping[int, Sequence[Picture]]  # of its tracklets, by id
    contexts: Mapping[int, Picture]  # the whole frame of a tracklet, where one is kept
    joins: Sequence[Join]  # the least certain first


_IDENTITY = text("SELECT unit, crops, tracklets FROM identity_now WHERE persistent_id = :id")


def unit_of(connection: Connection, persistent_id: UUID) -> str:
    """The unit of an identity as it is now. Raises InputError if there is none with this persistent id."""
    return str(_identity(connection, persistent_id).unit)


def read_journey(connection: Connection, persistent_id: UUID, zone: ZoneInfo) -> Journey:
    """The journey of an identity as it is now. Raises InputError if there is none with this persistent id."""
    row = _identity(connection, persistent_id)
    found = sorted(
        tracklets_by_id(connection, row.tracklets[:TRACKLETS]).values(), key=lambda t: (t.first_seen, t.last_seen, t.id)
    )
    if not found:
        raise InputError(f"no passage of identity {persistent_id} may be shown now")
    identity = DistrictIdentity(persistent_id, found)
    pictures = pictures_of(connection, [tracklet.id for tracklet in found])
    outages = read_outages(connection, row.unit, identity.first_seen, identity.last_seen)
    timeline = draw_timeline(identity, pictures, zone, outages)
    contexts = contexts_of(connection, [tracklet.id for tracklet in found])
    joins = read_joins(connection, row.unit, persistent_id)
    return Journey(row.unit, identity, len(row.tracklets), row.crops, timeline, pictures, contexts, joins)


def _identity(connection: Connection, persistent_id: UUID) -> Row[Any]:
    row = connection.execute(_IDENTITY, {"id": persistent_id}).one_or_none()
    if row is None:
        raise InputError(
            f"no identity {persistent_id} is shown to you now; it may have been joined to another, be erased, or lie "
            "outside of the authorization"
        )
    return row
