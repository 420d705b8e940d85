"""Pictures whose file may go, because no row holds them any more."""

from collections.abc import Collection, Iterator

from sqlalchemy import Connection, text

from pipeline.crops.crop_store import PROBES, Picture

#: So many are looked for and removed in one transaction, which keeps crops from coming in meanwhile.
AT_A_TIME = 1000

_PLACES = "unnest(CAST(:owners AS text[]), CAST(:days AS date[])) AS p (owner, day)"
#: Those of the pictures that rows hold, by what holds them.
_HELD = {
    "crops": text(  # by camera and time, which is the index of crops
        f"SELECT DISTINCT p.owner, p.day, c.picture FROM {_PLACES} JOIN urban_unit u "
        "ON starts_with(u.code, p.owner || '/') JOIN crop c ON c.camera = u.code "
        "AND c.captured_at >= p.day::timestamp AT TIME ZONE 'UTC' "
        "AND c.captured_at < (p.day + 1)::timestamp AT TIME ZONE 'UTC' "
        "WHERE c.picture = ANY(CAST(:pictures AS bytea[])) AND c.withdrawn_at IS NULL"
    ),
    "context": text(
        f"SELECT DISTINCT p.owner, p.day, f.picture FROM {_PLACES} JOIN context_frame f ON f.day = p.day "
        "AND starts_with(f.camera, p.owner || '/') WHERE f.picture = ANY(CAST(:pictures AS bytea[]))"
    ),
    PROBES: text(
        f"SELECT DISTINCT p.owner, p.day, b.picture FROM {_PLACES} JOIN probe b "
        "ON (b.uploaded_at AT TIME ZONE 'UTC')::date = p.day WHERE b.picture = ANY(CAST(:pictures AS bytea[]))"
    ),
}


def parts(pictures: Collection[Picture]) -> Iterator[list[Picture]]:
    """The pictures, each once, AT_A_TIME of them at a time; those of a place lie together."""
    ordered = sorted(set(pictures))
    for start in range(0, len(ordered), AT_A_TIME):
        yield ordered[start : start + AT_A_TIME]


def unheld(connection: Connection, by: str, pictures: Collection[Picture]) -> list[Picture]:
    """Those of the pictures that no row holds, in order. by: "crops", "context" or PROBES.

    It stays so until the transaction ends where that has `pipeline.store.locks.lock_crops`.
    """
    places = sorted({place for place, _ in pictures})
    of = {
        "owners": [place.owner for place in places],
        "days": [place.day for place in places],
        "pictures": [picture for _, picture in pictures],
    }
    held = {(row.owner, row.day, bytes(row.picture)) for row in connection.execute(_HELD[by], of)}
    return sorted(one for one in set(pictures) if (one[0].owner, one[0].day, one[1]) not in held)
