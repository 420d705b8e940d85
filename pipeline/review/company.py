"""Who comes along with a passage: the district's identity that holds it now, with all that it was joined with."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.review.passages import NEWEST

#: From so many passages of the smaller of two identities on, a true `same` was seen to do harm, because strangers came
#: along with it (docs/experiments.md, 23).
MANY = 3

# From a tracklet up to the district's identity of now.
_HELD = text(
    "WITH RECURSIVE up (tracklet, id) AS (SELECT t, t FROM unnest(CAST(:tracklets AS bigint[])) AS t "
    "  UNION SELECT u.tracklet, m.identity_id FROM up u JOIN identity_member m ON m.child_id = u.id) "
    "SELECT DISTINCT u.tracklet, i.persistent_id, cardinality(i.tracklets) AS passages "
    "FROM up u JOIN identity i ON i.id = u.id "
    f"JOIN run r ON r.id = i.run_id AND r.superseded_at IS NULL WHERE i.level = 'district' AND {NEWEST} ORDER BY 1"
)


@dataclass(frozen=True)
class Company:
    """The district's identity that holds a passage."""

    person: UUID
    passages: int


def companies(connection: Connection, tracklets: Sequence[int]) -> dict[int, Company]:
    """Of each tracklet, by id, the identity that holds it; none of one that no district has."""
    rows = connection.execute(_HELD, {"tracklets": list(tracklets)})
    return {row.tracklet: Company(row.persistent_id, row.passages) for row in rows}


def brings_many(one: Company | None, other: Company | None) -> bool:
    """Whether `same` of two passages would join two identities both of which hold MANY passages or more."""
    if one is None or other is None or one.person == other.person:
        return False
    return min(one.passages, other.passages) >= MANY
