"""Passages: the tracklets of now, looked up by key or id, and those that stand for a whole identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from pipeline.city.named import OUTDATED_UNSEEN
from schemas.errors import InputError
from schemas.levels import parent_of

#: Of an identity `i` of a current run: whether it is the state of now. As the view identity_now, which looks at all.
NEWEST = (
    "NOT i.retired AND NOT EXISTS (SELECT FROM identity n JOIN run s ON s.id = n.run_id AND s.superseded_at IS NULL "
    "WHERE n.unit = i.unit AND n.persistent_id = i.persistent_id AND n.window_start > i.window_start) "
    f"AND NOT {OUTDATED_UNSEEN}"
)
# The first crop of a tracklet names it; the same that `passage_of` finds in the database.
_PASSAGE = (
    "SELECT i.id, i.key, i.unit, i.first_seen, i.last_seen, i.timed, (SELECT c.key FROM identity_member m "
    "JOIN crop c ON c.id = m.crop_id WHERE m.identity_id = i.id ORDER BY c.captured_at, c.key LIMIT 1) AS crop "
    "FROM identity i JOIN run r ON r.id = i.run_id AND r.superseded_at IS NULL "
    f"WHERE i.level = 'camera' AND {{which}} AND {NEWEST} ORDER BY i.key LIMIT :most"
)
_BY_KEY = text(_PASSAGE.format(which="i.key >= :low AND i.key <= :high"))
_BY_ID = text(_PASSAGE.format(which="i.id = ANY(:ids)"))
# The identities of buildings, the largest first, each with its passages, those with most crops first.
_IN_BUILDINGS = text(
    "SELECT i.id AS identity, t.id FROM identity t JOIN identity_member m ON m.child_id = t.id "
    "JOIN identity i ON i.id = m.identity_id AND i.level = 'building' JOIN run r ON r.id = i.run_id "
    f"AND r.superseded_at IS NULL WHERE t.id = ANY(:ids) AND {NEWEST} ORDER BY i.crops DESC, i.key, t.crops DESC, t.key"
)


@dataclass(frozen=True)
class Passage:
    """A tracklet as it is now. `name`: the key of its first crop."""

    name: bytes
    key: bytes
    camera: str
    first_seen: datetime
    last_seen: datetime
    timed: bool


def passage_of(connection: Connection, name: str) -> Passage:
    """A tracklet of now by its key in hex, or by eight or more of its first digits. Raises InputError."""
    digits = name.lower()
    try:
        if not 8 <= len(digits) <= 64:
            raise ValueError
        low, high = bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))
    except ValueError:
        raise InputError(f"{name[:80]!r}: give at least the first eight hex digits of a passage's key") from None
    rows = connection.execute(_BY_KEY, {"low": low, "high": high, "most": 2}).all()
    if len(rows) != 1 or rows[0].crop is None:
        what = "more than one passage's key begins" if len(rows) > 1 else "no passage's key begins"
        raise InputError(f"{what} with {name[:40]!r} now", do="`urban-reid review list` shows keys")
    return _passage(rows[0])


def passages_by_id(connection: Connection, tracklets: Sequence[int]) -> dict[int, Passage]:
    """Those of the tracklets of now that may be seen and have a crop, by id. tracklets: ids."""
    rows = connection.execute(_BY_ID, {"ids": list(tracklets), "most": len(tracklets)}).all()
    return {row.id: _passage(row) for row in rows if row.crop is not None}


def in_buildings(connection: Connection, tracklets: Sequence[int]) -> list[list[int]]:
    """The ids of tracklets that one building has as one identity, the largest identity first.

    Of each the first stands for all: it has most crops, and what binds it binds the others as long as they are one.
    """
    groups: dict[int, list[int]] = {}
    for row in connection.execute(_IN_BUILDINGS, {"ids": list(tracklets)}):
        groups.setdefault(row.identity, []).append(row.id)
    return list(groups.values())


def unit_above(cameras: set[str]) -> str:
    """The lowest unit above all these cameras; they are of one district."""
    unit = parent_of(min(cameras))
    while unit is not None and not all(camera.startswith(f"{unit}/") for camera in cameras):
        unit = parent_of(unit)
    assert unit is not None, "cameras of one district have it above them"
    return unit


def _passage(row: Row[Any]) -> Passage:
    return Passage(bytes(row.crop), bytes(row.key), row.unit, row.first_seen, row.last_seen, row.timed)
