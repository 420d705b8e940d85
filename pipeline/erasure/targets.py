"""What an erasure is about: the crops, probes and searches of an identity, a crop, a probe or a case."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from pipeline.city.named import current_identity
from schemas.errors import InputError
from schemas.levels import parent_of

_CROPS_OF = text("SELECT crop_id FROM identity_member WHERE identity_id = ANY(:tracklets) AND crop_id IS NOT NULL")
_CAMERAS = text("SELECT DISTINCT camera FROM crop WHERE id = ANY(:crops)")


@dataclass(frozen=True)
class Target:
    """Rows of `crop`, `probe` and `search_request` by their ids. kind: identity, crop, probe or case.

    cases: names or ids of cases, of which standing searches end too.
    """

    kind: str
    crops: tuple[int, ...] = ()
    probes: tuple[UUID, ...] = ()
    requests: tuple[UUID, ...] = ()
    cases: tuple[str, ...] = ()


def find_target(connection: Connection, kind: str, names: Sequence[str]) -> Target:
    """What the names stand for now, together. Raises InputError if there is no identity, crop, probe or case of one."""
    find = {"identity": of_identity, "crop": of_crop, "probe": of_probe, "case": of_case}[kind]
    found = [find(connection, name) for name in names]
    return Target(
        kind,
        tuple(sorted({crop for one in found for crop in one.crops})),
        tuple(sorted({probe for one in found for probe in one.probes})),
        tuple(sorted({request for one in found for request in one.requests})),
        tuple(sorted({case for one in found for case in one.cases})),
    )


def of_identity(connection: Connection, name: str) -> Target:
    """All crops of an identity of any level as it is now. name: its persistent id, or four or more of its digits."""
    row = current_identity(connection, name)
    crops = connection.execute(_CROPS_OF, {"tracklets": row.tracklets}).scalars().all()
    return Target("identity", tuple(sorted(set(crops))))


def of_crop(connection: Connection, name: str) -> Target:
    if not re.fullmatch(r"[0-9a-f]{64}", name):
        raise InputError(f"{name[:80]!r} is no crop's key of 64 hex digits; `urban-reid resolve --export` lists keys")
    crop = connection.scalar(text("SELECT id FROM crop WHERE key = :key"), {"key": bytes.fromhex(name)})
    if crop is None:
        raise InputError(f"no crop has the key {name}; `urban-reid resolve --export` lists keys")
    return Target("crop", (int(crop),))


def of_probe(connection: Connection, name: str) -> Target:
    """A picture that was uploaded for searches, and those searches."""
    try:
        probe = UUID(name)
    except ValueError:
        raise InputError(
            f"{name[:80]!r} is no probe's id; `urban-reid audit show --action probe.upload` shows ids"
        ) from None
    if not connection.scalar(text("SELECT EXISTS (SELECT FROM probe WHERE id = :id)"), {"id": probe}):
        raise InputError(f"no probe {probe} is stored; `urban-reid audit show --action probe.upload` shows ids")
    return Target("probe", probes=(probe,))


def of_case(connection: Connection, name: str) -> Target:
    """All searches of a case, by its name or id, and the pictures that were uploaded for them."""
    row = connection.execute(text("SELECT * FROM rows_of_case(:name)"), {"name": name}).one()
    if row.held is None:
        raise InputError(f"there is no case {name[:80]!r}; `urban-reid cases list` shows them")
    if row.held:
        raise InputError(f"case {name[:80]!r} holds what it names; `urban-reid cases hold --release` ends that first")
    return Target("case", probes=tuple(row.probes), requests=tuple(row.requests), cases=(name,))


def check_not_held(connection: Connection, target: Target) -> None:
    """Raises InputError where a case holds some of the crops."""
    held = set(connection.execute(text("SELECT held_crops()")).scalar_one()) & set(target.crops)
    if held:
        raise InputError(
            f"a case holds {len(held)} of these crops; they can be erased when it ends that: `urban-reid cases list`"
        )


def units_of(connection: Connection, crops: tuple[int, ...]) -> list[str]:
    """The cameras of these crops and all units above them."""
    units: set[str] = set()
    for camera in connection.execute(_CAMERAS, {"crops": list(crops)}).scalars():
        unit: str | None = camera
        while unit is not None:
            units.add(unit)
            unit = parent_of(unit)
    return sorted(units)
